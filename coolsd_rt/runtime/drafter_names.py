"""Names of the drafters. Knows nothing else, so that specs and records can name one without importing the loop."""

from __future__ import annotations

from typing import Literal, get_args

DrafterName = Literal["eagle", "model", "jacobi", "jacobi_coupled", "jacobi_gumbel", "ngram", "rows"]
DRAFTERS: tuple[DrafterName, ...] = get_args(DrafterName)
JACOBI: tuple[DrafterName, ...] = ("jacobi", "jacobi_coupled", "jacobi_gumbel")
WITHOUT_MODEL: tuple[DrafterName, ...] = (*JACOBI, "ngram")
"""Drafters without a model: their drafts take no step."""
