"""One family of targets: its name, its config, and what its published models look like. Pure data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig


@dataclass(frozen=True)
class Family:
    """`name`: the key `family` of a header. `config`: its sizes, and through them its forms.

    cell: pixels along one side of a code's cell in published models, 0 where it depends on the tokenizer. sizes: pixels
    along one side of the images that published models were trained on; () is any. models: published sizes by name.
    """

    name: str
    config: type[DecoderConfig]
    cell: int
    sizes: tuple[int, ...]
    models: Mapping[str, Mapping[str, int]]

    def check_size(self, what: str, pixels: int | None, cell: int | None = None) -> int:
        """Cells along one side of an image of `pixels` a side; None stands for the one trained size.

        what: where the number was given. cell: of another tokenizer (8 for VQ-8). Raises UserError: a size that no
        published model was trained on.
        """
        if pixels is None and len(self.sizes) == 1:
            pixels = self.sizes[0]
        if pixels not in self.sizes:
            expected = f"an image size that {self.name} was trained on: {', '.join(map(str, self.sizes))}"
            raise UserError(what, expected=expected, found="nothing" if pixels is None else str(pixels))
        return pixels // (cell or self.cell)

    def of_sizes(self, **sizes: int) -> Mapping[str, int] | None:
        """The published model that has all these sizes, if there is one."""
        fits = (m for m in self.models.values() if all(m.get(k) == v for k, v in sizes.items()))
        return next(fits, None)
