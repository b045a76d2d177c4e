"""Prompts to prefixes: everything between what a user types and what the condition graph reads.

One interface, `Conditioner`, for words, classes, captions through T5, and tokens of the target's own. No kind knows
networks, and none but T5's encoder needs torch, so that a built engine can be run without it.
"""

from coolsd_rt.models.conditions.base import Conditioner, Encoded, Rows, check_fit, stack
from coolsd_rt.models.conditions.classes import LABELS_FILE, ClassLabels
from coolsd_rt.models.conditions.features import FEATURES_FILE, FeatureFile
from coolsd_rt.models.conditions.load import (
    KEYS,
    ConditionFacts,
    conditioner_files,
    describe_condition,
    load_conditioner,
    text_encoder,
)
from coolsd_rt.models.conditions.t5 import UNCONDITIONAL_FILE, T5Conditioner, TextEncoder
from coolsd_rt.models.conditions.t5_encoder import T5Encoder
from coolsd_rt.models.conditions.tokens import TokensConditioner
from coolsd_rt.models.conditions.words import PAD, UNCONDITIONAL, UNKNOWN, VOCABULARY_FILE, WordVocabulary, split
from coolsd_rt.models.foreign_tokenizer import TOKENIZER_FILE

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
    "TextEncoder",
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
