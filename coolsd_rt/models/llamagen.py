"""LlamaGen's names for classes that all families share: its configs, and the network.

Knows names only. Does not know other families. Source: LlamaGen (Sun et al., 2024). See `decoder` and `families`.
"""

from coolsd_rt.models.decoder import Decoder as LlamaGen
from coolsd_rt.models.families.llamagen import CaptionConfig, ClassConfig, LlamaGenConfig

__all__ = ["CaptionConfig", "ClassConfig", "LlamaGen", "LlamaGenConfig"]
