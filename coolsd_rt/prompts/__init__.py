"""Converts prompts to prefixes: everything between the user's text and the input of the condition graph.

One protocol, `Conditioner`, covers words, classes, captions with T5 features, and tokens of the target's vocabulary.
Knows text and prompt files. Does not know networks; only the T5 encoder needs torch, so that a built engine runs
without it.
"""

from typing import TYPE_CHECKING

from coolsd_rt.deferred import deferred
from coolsd_rt.prompts.base import Conditioner, Encoded, Rows, check_fit, stack

if TYPE_CHECKING:
    from coolsd_rt.pretrained.tokenizer import TOKENIZER_FILE
    from coolsd_rt.prompts.classes import LABELS_FILE, ClassLabels
    from coolsd_rt.prompts.features import FEATURES_FILE, FeatureFile
    from coolsd_rt.prompts.load import (
        KEYS,
        ConditionFacts,
        conditioner_files,
        describe_condition,
        load_conditioner,
        text_encoder,
    )
    from coolsd_rt.prompts.t5 import UNCONDITIONAL_FILE, T5Conditioner, TextEncoder
    from coolsd_rt.prompts.t5_encoder import T5Encoder
    from coolsd_rt.prompts.texts import TextConditioner, TextStream
    from coolsd_rt.prompts.tokens import TokensConditioner
    from coolsd_rt.prompts.words import PAD, UNCONDITIONAL, UNKNOWN, VOCABULARY_FILE, WordVocabulary, split

__all__ = [
    "FEATURES_FILE",
    "KEYS",
    "LABELS_FILE",
    "PAD",
    "TOKENIZER_FILE",
    "UNCONDITIONAL",
    "UNCONDITIONAL_FILE",
    "UNKNOWN",
    "VOCABULARY_FILE",
    "ClassLabels",
    "ConditionFacts",
    "Conditioner",
    "Encoded",
    "FeatureFile",
    "Rows",
    "T5Conditioner",
    "T5Encoder",
    "TextConditioner",
    "TextEncoder",
    "TextStream",
    "TokensConditioner",
    "WordVocabulary",
    "check_fit",
    "conditioner_files",
    "describe_condition",
    "load_conditioner",
    "split",
    "stack",
    "text_encoder",
]

_HOMES = {
    "classes": ("LABELS_FILE", "ClassLabels"),
    "features": ("FEATURES_FILE", "FeatureFile"),
    "load": ("KEYS", "ConditionFacts", "conditioner_files", "describe_condition", "load_conditioner", "text_encoder"),
    "t5": ("UNCONDITIONAL_FILE", "T5Conditioner", "TextEncoder"),
    "t5_encoder": ("T5Encoder",),
    "texts": ("TextConditioner", "TextStream"),
    "tokens": ("TOKENIZER_FILE", "TokensConditioner"),
    "words": ("PAD", "UNCONDITIONAL", "UNKNOWN", "VOCABULARY_FILE", "WordVocabulary", "split"),
}
"""Each kind of condition in a module of its own: an engine has one kind."""

if not TYPE_CHECKING:  # hidden from type checkers, which would take any name for one of the package's
    __getattr__ = deferred(__name__, _HOMES)
