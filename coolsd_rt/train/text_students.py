"""Features that predict the tokens of texts, for each kind of draft: the real tokens of a batch, one after another.

Texts have different lengths, and their vocabulary is large. So only features are returned, of real tokens alone: a loss
or a measurement applies the heads to them, to as many tokens at once as memory allows. Knows the networks and guidance.
Does not know losses or laws. Legend as in `students`; T tokens of a batch, without the first of each text, which no
round drafts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.train.chain import own_predictions
from coolsd_rt.train.students import Example, guided


class TextAlong(NamedTuple):
    """What predicts the real tokens of a batch.

    Attributes:
        text, token: int64 [T], the text of each token in the batch, and its number in that text, from 1.
        ids: int64 [T], the tokens.
        target: float [T, C], the target's guided features. head: its head, [V, C].
        drafts: float [T, C'] for each depth; a token whose number is at most the depth is no draft of it.
        own: the head that is applied to `drafts`, [V, C'].
        smooth: SmoothL1 loss of predicted features, one per depth.
        closed: bool [V], the tokens that are never drafted; None: there are none.
    """

    text: Tensor
    token: Tensor
    ids: Tensor
    target: Tensor
    head: Tensor
    drafts: list[Tensor]
    own: Tensor
    smooth: list[Tensor]
    closed: Tensor | None = None


class TextFeatures:
    """A model's features of texts, and a cache of those of recurring texts on the host, up to `limit` bytes.

    Each row is computed alone, without padding: so its features do not depend on the batch that it comes in first, and
    a resumed training reads the same ones. They are kept in the model's own precision.
    """

    def __init__(self, model: Decoder, limit: int = 1 << 30) -> None:
        self._model, self._left, self._known = model, limit, dict[tuple[int, int], Tensor]()

    def features(self, example: Example) -> Tensor:
        """Return features float32 [R, S, C] of positions 0 .. S - 1, zeros where there is padding."""
        codes, images = example.both(), len(example.codes)
        size = example.text.shape[1] + codes.shape[1] - 1
        whole = torch.zeros(len(codes), size, self._model.cfg.dim, device=codes.device)
        for row in range(len(codes)):
            number = example.numbers[row % images] if example.numbers else None
            found = self._row(example, row, None if number is None else (number, row // images))
            first = int(_starts(example)[row])
            whole[row, first : first + len(found)] = found
        return whole

    def _row(self, example: Example, row: int, key: tuple[int, int] | None) -> Tensor:
        if key is not None and key in self._known:
            return self._known[key].to(example.codes.device)
        image, first = row % len(example.codes), int(_starts(example)[row])
        codes = example.codes[image : image + 1, : int(_lengths(example)[image])]
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            found = self._model.hidden(example.text[row : row + 1, first:], codes)[0]
        size = found.numel() * found.element_size()
        if key is not None and size <= self._left:
            self._known[key] = found.cpu().clone()
            self._left -= size
        return found


def _starts(example: Example) -> Tensor:
    return torch.zeros(len(example.text), dtype=torch.int64) if example.start is None else example.start


def _lengths(example: Example) -> Tensor:
    """Return the tokens of each text. Raises ValueError for images: a programming error."""
    if example.lengths is None:
        raise ValueError("expected an example of texts, found one of images")
    return example.lengths


def real_tokens(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the text and the number of every token behind the first of each text, int64 [T] each."""
    numbers = torch.arange(int(lengths.max()), device=lengths.device)
    text, token = ((numbers >= 1) & (numbers < lengths[:, None])).nonzero().unbind(1)
    return text, token


def _gathered(features: Tensor, rows: Tensor, text: Tensor, token: Tensor, scale: Tensor | None) -> Tensor:
    """Return guided features [T, C] of positions `rows` int64 [T] of the texts."""
    if scale is None:
        return features[text, rows]
    images = len(features) // 2
    both = torch.cat([features[text, rows], features[images + text, rows]])[:, None]
    return guided(both, scale[text, token][:, None, None])[:, 0]


class TextHeadStudent:
    """An EAGLE head on the target's features, along texts."""

    def __init__(self, head: Eagle, target: Decoder, memory: TextFeatures | None = None) -> None:
        self.network, self.target, self.memory = head, target, memory or TextFeatures(target)

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> TextAlong:
        """Return features along the texts for `steps` depths. Gradients reach only the draft.

        noise: added to the head's input features, in their standard deviations, [R, S, C] of positions 0 .. S - 1.
        """
        target, codes, width = self.target, example.both(), example.text.shape[1]
        text, token = real_tokens(_lengths(example))
        with torch.no_grad():
            prefix = target.condition(example.text)
            features = self.memory.features(example)
        embedded = torch.cat([prefix[:, 1:], self.network.table(target)(codes)], dim=1)
        at = width - 1 + token  # the position whose feature predicts the token; row `at - 1` of the head predicts it
        truth = _gathered(features, at, text, token, example.scale)
        given = features
        if noise is not None:
            given = features + noise.to(features.dtype) * features[text, at].std()
        guesses = own_predictions(self.network, target, embedded[:, :-1], given[:, :-1], steps, example.start)
        drafts, smooth = [], []
        for depth, guess in enumerate(guesses):
            drafts.append(_gathered(guess, at - 1, text, token, example.scale))
            deep = token > depth
            smooth.append(F.smooth_l1_loss(drafts[-1][deep].float(), truth[deep]))
        head, slots = target.output.weight, self.network.slots(target.cfg.vocab)
        closed = None if slots is None else slots.eq(self.network.cfg.draft_vocab or 0)
        return TextAlong(text, token, example.codes[text, token], truth, head, drafts, head, smooth, closed)


class TextModelStudent:
    """An independent small model along texts, whose predictions do not depend on where a round began."""

    def __init__(self, model: Decoder, target: Decoder, memory: TextFeatures | None = None) -> None:
        self.network, self.target, self.memory = model, target, memory or TextFeatures(target)

    def along(self, example: Example, steps: int, noise: Tensor | None = None) -> TextAlong:
        """Return features along the texts; see `TextHeadStudent.along`. `noise` is ignored."""
        text, token = real_tokens(_lengths(example))
        at = example.text.shape[1] - 1 + token
        truth = _gathered(self.memory.features(example), at, text, token, example.scale)
        found = self.network.hidden(example.text, example.both(), example.start)
        mine = _gathered(found, at, text, token, example.scale)
        ids, nothing = example.codes[text, token], mine.new_zeros(())
        head, own = self.target.output.weight, self.network.output.weight
        return TextAlong(text, token, ids, truth, head, [mine] * steps, own, [nothing] * steps)
