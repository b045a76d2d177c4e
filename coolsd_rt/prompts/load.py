"""Creates the conditioner of a spec's `condition` section, and lists the files that it needs.

| kind | copied to the engine's folder | made by the build |
|---|---|---|
| words | vocab.json | |
| class | labels.txt, if the spec names labels | |
| t5 | features.safetensors, if the spec names features | unconditional.npy, from the target's weights |
| tokens | tokenizer.json | |
| text | tokenizer.json, chat_template.jinja if the spec names a template | |

Everything else that a kind needs is in the spec, and so in the manifest. The module of a kind is imported when a
condition is of that kind. Knows kinds and files. Does not know engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coolsd_rt.errors import UserError
from coolsd_rt.prompts.base import Conditioner
from coolsd_rt.spec.condition import (
    ClassCondition,
    Condition,
    T5Condition,
    TextCondition,
    TokensCondition,
    WordsCondition,
)

if TYPE_CHECKING:
    from coolsd_rt.prompts.features import FeatureFile
    from coolsd_rt.prompts.t5_encoder import T5Encoder

KEYS = ("condition.vocab", "condition.labels", "condition.features", "condition.tokenizer", "condition.chat_template")
"""The spec keys that name the files of a condition."""


def conditioner_files(condition: Condition) -> dict[str, str]:
    """Return the files that a build copies: file name in the engine's folder to the spec key that names the file."""
    if isinstance(condition, WordsCondition):
        from coolsd_rt.prompts.words import VOCABULARY_FILE

        return {VOCABULARY_FILE: "condition.vocab"}
    if isinstance(condition, ClassCondition):
        from coolsd_rt.prompts.classes import LABELS_FILE

        return {LABELS_FILE: "condition.labels"} if condition.labels is not None else {}
    if isinstance(condition, T5Condition):
        from coolsd_rt.prompts.features import FEATURES_FILE

        return {FEATURES_FILE: "condition.features"} if condition.features is not None else {}
    from coolsd_rt.pretrained.tokenizer import TOKENIZER_FILE

    files = {TOKENIZER_FILE: "condition.tokenizer"}
    if isinstance(condition, TextCondition) and condition.chat_template is not None:
        from coolsd_rt.prompts.chat import TEMPLATE_FILE

        files[TEMPLATE_FILE] = "condition.chat_template"
    return files


@dataclass(frozen=True)
class ConditionFacts:
    """The properties that a condition requires of a target.

    Attributes:
        prefix: prefix length W.
        padded: whether prefixes are padded on the left.
        ids: rows of the target's embedding; None: any number.
        features_dim: width of the features that the target reads, 0 for ids; None: any width.
        tokens: the tokens that can end a text, for a condition of texts.
    """

    prefix: int
    padded: bool
    ids: int | None = None
    features_dim: int | None = 0
    tokens: frozenset[str] = frozenset()


def describe_condition(condition: Condition, files: Mapping[str, Path]) -> ConditionFacts:
    """Open and check a spec's files, given by key, before a build.

    Raises UserError and MissingExtra as the kinds do.
    """
    if isinstance(condition, T5Condition):
        dim = None
        if condition.features is not None:
            from coolsd_rt.prompts.features import FeatureFile

            file = FeatureFile.open(files["condition.features"])
            _same_encoder(file, condition)
            dim = file.dim
        return ConditionFacts(condition.length, True, features_dim=dim)
    made = _without_network(
        condition, {name: files[key] for name, key in conditioner_files(condition).items()}.__getitem__
    )
    return ConditionFacts(made.prefix, made.padded, ids_of(made), tokens=_tokens_of(made))


def _tokens_of(conditioner: Conditioner) -> frozenset[str]:
    from coolsd_rt.prompts.texts import TextConditioner

    return frozenset(conditioner.tokenizer.get_vocab()) if isinstance(conditioner, TextConditioner) else frozenset()


def ids_of(conditioner: Conditioner) -> int | None:
    """Return the number of ids that words or classes have, the rows of the target's embedding; None: any number."""
    from coolsd_rt.prompts.words import WordVocabulary

    if isinstance(conditioner, WordVocabulary):
        return len(conditioner.words)
    from coolsd_rt.prompts.classes import ClassLabels

    return conditioner.classes + 1 if isinstance(conditioner, ClassLabels) else None


def load_conditioner(
    condition: Condition,
    path: Callable[[str], Path],
    *,
    spec_folder: Path | None = None,
    features: Path | None = None,
    encoder: Path | None = None,
) -> Conditioner:
    """Create the conditioner of an engine.

    path: returns a file of the engine's folder by name (`VerifiedEngine.path`). spec_folder: folder of the spec, for
    `condition.folder`; None if unknown. features, encoder: file and folder that replace those of a `t5` condition. A
    text encoder is loaded only when a caption needs it.

    Raises UserError or CoolsdError for an invalid file, MissingExtra if a tokenizer's library is missing.
    """
    if not isinstance(condition, T5Condition):
        if features is not None or encoder is not None:
            expected, found = "a target that reads a text encoder's features", f"a target that reads {condition.kind}"
            raise UserError("features or a text encoder", expected=expected, found=found, fix="leave them out")
        return _without_network(condition, path)
    from coolsd_rt.prompts.features import FEATURES_FILE, FeatureFile
    from coolsd_rt.prompts.t5 import UNCONDITIONAL_FILE, T5Conditioner, load_unconditional

    learned = load_unconditional(path(UNCONDITIONAL_FILE))
    where = features
    if where is None and condition.features is not None:
        where = path(FEATURES_FILE)
    file = None if where is None else FeatureFile.open(where)
    if file is not None:
        _same_encoder(file, condition)
    return T5Conditioner(learned, file, text_encoder(condition, spec_folder, encoder))


def text_encoder(
    condition: T5Condition, spec_folder: Path | None = None, encoder: Path | None = None
) -> T5Encoder | None:
    """Return the encoder that a condition names, or the one in the folder `encoder`; None if neither is given."""
    from coolsd_rt.prompts.t5_encoder import T5Encoder

    folder = encoder
    if folder is None and condition.folder is not None and spec_folder is not None:
        folder = spec_folder / condition.folder
    if folder is not None:
        return T5Encoder(folder, condition.length, condition.precision)
    if condition.encoder is not None:
        return T5Encoder(condition.encoder, condition.length, condition.precision, condition.revision)
    return None


def _without_network(
    condition: WordsCondition | ClassCondition | TokensCondition | TextCondition, path: Callable[[str], Path]
) -> Conditioner:
    if isinstance(condition, WordsCondition):
        from coolsd_rt.prompts.words import VOCABULARY_FILE, WordVocabulary

        return WordVocabulary.load(path(VOCABULARY_FILE))
    if isinstance(condition, ClassCondition):
        from coolsd_rt.prompts.classes import LABELS_FILE, ClassLabels

        return ClassLabels.load(None if condition.labels is None else path(LABELS_FILE), condition.classes)
    from coolsd_rt.pretrained.tokenizer import TOKENIZER_FILE

    if isinstance(condition, TextCondition):
        from coolsd_rt.prompts.chat import TEMPLATE_FILE
        from coolsd_rt.prompts.texts import TextConditioner

        template = None if condition.chat_template is None else path(TEMPLATE_FILE)
        return TextConditioner.load(path(TOKENIZER_FILE), condition.length, template)
    from coolsd_rt.prompts.tokens import TokensConditioner

    size = None if condition.width is None or condition.height is None else (condition.width, condition.height)
    return TokensConditioner.load(path(TOKENIZER_FILE), condition.layout, condition.length, size, condition.template)


def _same_encoder(file: FeatureFile, condition: T5Condition) -> None:
    """Raise UserError if the features come from another encoder than the spec's.

    Compares only names valid on all machines.
    """
    wanted = f"{condition.encoder}@{condition.revision}"
    if condition.encoder is not None and "@" in file.encoder and file.encoder != wanted:
        fix = "compute them with the spec's encoder"
        raise UserError(str(file.path), expected=f"features of {wanted}", found=f"features of {file.encoder}", fix=fix)
