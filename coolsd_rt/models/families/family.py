"""One family of targets: its name, its config, and facts about its published models.

Knows pure data. Does not know torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig


@dataclass(frozen=True)
class Family:
    """A family of targets.

    name: value of the key `family` in a header.
    config: class of its configs, which selects the forms of the network.
    cell: pixels along one side of a code's cell in published models, 0 if it depends on the tokenizer.
    sizes: pixels along one side of the images that published models were trained on; () means any.
    models: sizes of published models by name.
    """

    name: str
    config: type[DecoderConfig]
    cell: int
    sizes: tuple[int, ...]
    models: Mapping[str, Mapping[str, int]]

    def check_size(self, what: str, pixels: int | None, cell: int | None = None) -> int:
        """Return the cells along one side of an image of `pixels` per side; None stands for the only trained size.

        what: where the number was given, for the error.
        cell: pixels per cell of another tokenizer (8 for VQ-8).

        Raises UserError: a size that no published model was trained on.
        """
        if pixels is None and len(self.sizes) == 1:
            pixels = self.sizes[0]
        if pixels not in self.sizes:
            expected = f"an image size that {self.name} was trained on: {', '.join(map(str, self.sizes))}"
            raise UserError(what, expected=expected, found="nothing" if pixels is None else str(pixels))
        return pixels // (cell or self.cell)

    def of_sizes(self, **sizes: int) -> Mapping[str, int] | None:
        """Return the published model that has all these sizes; None if there is none."""
        fits = (m for m in self.models.values() if all(m.get(k) == v for k, v in sizes.items()))
        return next(fits, None)
