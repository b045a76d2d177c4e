"""Past one machine: images over HTTP by Ray Serve, long jobs by Ray Data. The one room that knows Ray."""
