"""Converts prompts to tokens of the target's vocabulary: the `tokens` condition of Lumina-mGPT, Anole and Janus-Pro.

Knows tokenizer.json files, templates, and the tokens that each layout puts around a prompt. Does not know networks.
Needs no torch.

| layout | conditional row | unconditional row |
|---|---|---|
| lumina | the prompt in its template, begin of image, height and width | begin of image, height and width |
| anole | the prompt in its template, begin of image | the first token and begin of image |
| janus | the prompt in its template, which ends with begin of image | the same, padding except for the first and last
token |

Sources: the inference code of Lumina-mGPT and Janus, and LANTERN's for Anole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from coolsd_rt.errors import UserError
from coolsd_rt.models.families.chameleon import BEGIN_OF_IMAGE
from coolsd_rt.models.families.lumina import GRID
from coolsd_rt.pretrained.tokenizer import encode, read_tokenizer
from coolsd_rt.prompts.base import SAMPLES, Encoded, need, quoted, some_text, too_long
from coolsd_rt.spec.condition import LUMINA_STEP

Layout = Literal["lumina", "anole", "janus"]
TEMPLATES: dict[Layout, str] = {
    "lumina": "Generate an image of {width}x{height} according to the following prompt:\n{prompt}<reserved08706>",
    "anole": "{prompt}<reserved08706>",
    "janus": "<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>",
}
_MARKS = ("<reserved08706>", "<|User|>", "<|Assistant|>", "<begin_of_image>")  # each is one token in a template
FIRST: dict[Layout, str] = {"lumina": "<s>", "anole": "<s>", "janus": "<｜begin▁of▁sentence｜>"}  # noqa: RUF001
JANUS_PAD = "<｜▁pad▁｜>"  # noqa: RUF001 (full-width bars, as its tokenizer has them)


@dataclass(frozen=True)
class TokensConditioner:
    """A `Conditioner` for tokens.

    Attributes:
        length: prefix length W.
        size: (width, height) in pixels; lumina only.
        template: None is the layout's template.
    """

    tokenizer: Any
    layout: Layout
    length: int
    size: tuple[int, int] | None = None
    template: str | None = None

    @staticmethod
    def load(
        path: Path, layout: Layout, length: int, size: tuple[int, int] | None = None, template: str | None = None
    ) -> TokensConditioner:
        """Create the conditioner with the tokenizer at `path`.

        Raises UserError if the file is not a tokenizer, lacks a token that the layout needs, or `length` is too small;
        MissingExtra without the package `tokenizers`.
        """
        need("tokens", "tokenizers")
        tokenizer = read_tokenizer(path, fix="name the tokenizer.json that was published with the target")
        made = TokensConditioner(tokenizer, layout, length, size, template)
        made._check(path)
        return made

    def _check(self, path: Path) -> None:
        wanted = [FIRST[self.layout], *(mark for mark in _MARKS if mark in self.text(""))]
        wanted += [JANUS_PAD] if self.layout == "janus" else []
        for mark in wanted:
            if encode(self.tokenizer, mark, marks=False).ids != [self.tokenizer.token_to_id(mark)]:
                fix = "name the target's own tokenizer.json"
                raise UserError(str(path), expected=f"one token {mark}", found="none", fix=fix)
        bare = 1 + len(self._encode("").ids) + len(self.tail)
        if bare >= self.length:
            expected = f"more than the {bare} tokens around a prompt"
            raise UserError("condition.length", expected=expected, found=str(self.length))

    @property
    def prefix(self) -> int:
        """The prefix length W."""
        return self.length

    @property
    def features_dim(self) -> int:
        """0, since rows are ids."""
        return 0

    @property
    def padded(self) -> bool:
        """True: prompts have different numbers of tokens."""
        return True

    @property
    def pad(self) -> int | None:
        """Id of Janus' padding token; None if the tokenizer has none."""
        found: int | None = self.tokenizer.token_to_id(JANUS_PAD)
        return found

    @property
    def tail(self) -> tuple[int, ...]:
        """The tokens after the prompt's tokens."""
        if self.layout == "anole":
            return (BEGIN_OF_IMAGE,)
        if self.layout != "lumina" or self.size is None:
            return ()
        width, height = self.size
        return (BEGIN_OF_IMAGE, GRID + height // LUMINA_STEP, GRID + width // LUMINA_STEP)

    def text(self, prompt: str) -> str:
        """Insert a prompt into its template."""
        width, height = self.size or (0, 0)
        template = self.template or TEMPLATES[self.layout]
        # The prompt is inserted last, so that placeholders in it are not replaced.
        return template.replace("{width}", str(width)).replace("{height}", str(height)).replace("{prompt}", prompt)

    def encode(self, prompt: str) -> Encoded:
        """Return a prompt's tokens.

        Raises UserError if the prompt is empty, too long, or contains a control token of the target.
        """
        text = some_text(prompt)
        for mark in self._marks:
            if mark in text:
                found = f"{quoted(mark)} in {quoted(text)}"
                raise UserError("prompt", expected="words, no control tokens of the target", found=found, fix="drop it")
        encoding = self._encode(text)
        ids = (self.tokenizer.token_to_id(FIRST[self.layout]), *encoding.ids, *self.tail)
        if len(ids) > self.length:
            raise too_long(text, len(ids), self.length)
        unknown = tuple(
            self.text(text)[begin:end]
            for id_, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if id_ == self._unknown and end > begin
        )
        return Encoded(ids, unknown, self.length - len(ids))

    def unconditional(self, encoded: Encoded) -> Encoded:
        """Return the unconditional row. Lumina, Anole: no prompt, later start. Janus: as long as the prompt's row."""
        if self.layout != "janus":
            ids = (encoded.ids[:1] if self.layout == "anole" else ()) + self.tail
            return Encoded(ids, start=self.length - len(ids))
        ids = (encoded.ids[0], *(self.pad or 0 for _ in encoded.ids[1:-1]), encoded.ids[-1])
        return Encoded(ids, start=encoded.start)

    def samples(self) -> list[str]:
        """Return general sample prompts."""
        return list(SAMPLES)

    def release(self) -> None:
        """Do nothing: there is nothing to free."""

    def _encode(self, prompt: str) -> Any:
        """Encode a prompt in its template.

        The first token is added here, because not every published tokenizer adds it.
        """
        return encode(self.tokenizer, self.text(prompt), marks=False)

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """Tokens that a prompt may not contain, so that a user cannot end a turn or begin an image."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(t.content for t in added if t.special or (t.content[:1], t.content[-1:]) == ("<", ">"))

    @cached_property
    def _unknown(self) -> int | None:
        word = getattr(self.tokenizer.model, "unk_token", None)
        return None if word is None else self.tokenizer.token_to_id(word)
