"""Load on a server: images that arrive at random in this process (`arrivals`), clients over HTTP (`scenarios`)."""
