"""LlamaGen's names for what all families share: its config with a word condition, and the network.

Source: LlamaGen (Sun et al., 2024). See `decoder` and `families`.
"""

from coolsd_rt.models.decoder import Decoder as LlamaGen
from coolsd_rt.models.families.llamagen import CaptionConfig, ClassConfig, LlamaGenConfig

__all__ = ["CaptionConfig", "ClassConfig", "LlamaGen", "LlamaGenConfig"]
