"""Prompts to tokens of the target's own vocabulary: the `tokens` condition of Lumina-mGPT, Anole and Janus-Pro.

Knows the tokens of a tokenizer.json, templates, and what each layout has around a prompt. Does not
know networks. Needs no torch.

| layout | conditional row | unconditional row |
|---|---|---|
| lumina | the prompt in its template, begin of image, height and width | begin of image, height and width alone |
| anole | the prompt in its template, begin of image | the first token and begin of image alone |
| janus | the prompt in its template, which ends with begin of image | the same, padding but for its first and last |

Sources: Lumina-mGPT's and Janus' own inference, LANTERN's of Anole.
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
_MARKS = ("<reserved08706>", "<|User|>", "<|Assistant|>", "<begin_of_image>")  # of the templates: a token each
FIRST: dict[Layout, str] = {"lumina": "<s>", "anole": "<s>", "janus": "<｜begin▁of▁sentence｜>"}  # noqa: RUF001
JANUS_PAD = "<｜▁pad▁｜>"  # noqa: RUF001 (full-width bars, as its tokenizer has them)


@dataclass(frozen=True)
class TokensConditioner:
    """A `Conditioner`. length: W. size: (width, height) in pixels, of lumina. template: None is the layout's own."""

    tokenizer: Any
    layout: Layout
    length: int
    size: tuple[int, int] | None = None
    template: str | None = None

    @staticmethod
    def load(
        path: Path, layout: Layout, length: int, size: tuple[int, int] | None = None, template: str | None = None
    ) -> TokensConditioner:
        """With the tokenizer at `path`.

        Raises UserError: not a tokenizer, or one that lacks what the layout needs; no room for it in `length`.
        MissingExtra: no `tokenizers`.
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
        return self.length

    @property
    def features_dim(self) -> int:
        return 0

    @property
    def padded(self) -> bool:
        return True

    @property
    def pad(self) -> int | None:
        found: int | None = self.tokenizer.token_to_id(JANUS_PAD)
        return found

    @property
    def tail(self) -> tuple[int, ...]:
        """What follows a prompt's own tokens."""
        if self.layout == "anole":
            return (BEGIN_OF_IMAGE,)
        if self.layout != "lumina" or self.size is None:
            return ()
        width, height = self.size
        return (BEGIN_OF_IMAGE, GRID + height // LUMINA_STEP, GRID + width // LUMINA_STEP)

    def text(self, prompt: str) -> str:
        """A prompt in its template."""
        width, height = self.size or (0, 0)
        template = self.template or TEMPLATES[self.layout]
        # Prompt last: what a user writes is not searched for places.
        return template.replace("{width}", str(width)).replace("{height}", str(height)).replace("{prompt}", prompt)

    def encode(self, prompt: str) -> Encoded:
        """A prompt's tokens. Raises UserError: empty, too long, or with a control token of the target in it."""
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
        """Lumina, Anole: another start, no words. Janus: as long as the prompt's own row."""
        if self.layout != "janus":
            ids = (encoded.ids[:1] if self.layout == "anole" else ()) + self.tail
            return Encoded(ids, start=self.length - len(ids))
        ids = (encoded.ids[0], *(self.pad or 0 for _ in encoded.ids[1:-1]), encoded.ids[-1])
        return Encoded(ids, start=encoded.start)

    def samples(self) -> list[str]:
        return list(SAMPLES)

    def release(self) -> None:
        """Nothing to let go of."""

    def _encode(self, prompt: str) -> Any:
        """A prompt in its template. The first token of all is ours to set: not every published file would."""
        return encode(self.tokenizer, self.text(prompt), marks=False)

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """What a prompt may not hold: a user cannot end a turn, or begin an image."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(t.content for t in added if t.special or (t.content[:1], t.content[-1:]) == ("<", ">"))

    @cached_property
    def _unknown(self) -> int | None:
        word = getattr(self.tokenizer.model, "unk_token", None)
        return None if word is None else self.tokenizer.token_to_id(word)
