"""The spec: YAML, defaults, paths, error positions. Does not know torch, engines or the contents of weights files."""

from coolsd_rt.spec.load import LoadedSpec, SpecError, is_spec, load_spec
from coolsd_rt.spec.model import Spec
from coolsd_rt.spec.override import with_draft_length, with_jacobi, with_ngram, with_overrides

__all__ = [
    "LoadedSpec", "Spec", "SpecError", "is_spec", "load_spec", "with_draft_length", "with_jacobi", "with_ngram",
    "with_overrides",
]  # fmt: skip
