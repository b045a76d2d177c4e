"""coolsd-rt: relaxed speculative decoding for autoregressive image models, from a YAML spec to a picture."""

from coolsd_rt.telemetry import switch_off

switch_off()  # before any module of ours can import a library that reports

__version__ = "0.1.0"
