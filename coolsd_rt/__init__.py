"""coolsd-rt: relaxed speculative decoding for autoregressive image models, from a YAML spec to a picture."""

__version__ = "0.1.0"
