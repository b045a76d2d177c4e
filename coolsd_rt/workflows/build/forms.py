"""Which matrices of a graph are row-wise int8 and which are int8 by blocks, as the stage `quantization` recorded it.

The record is JSON data in the manifest: the choice for each shape, its measured times, the processor. Knows the record
and shapes. Does not know how anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from coolsd_rt.export.external import Outline
from coolsd_rt.export.products import constant_products
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.rowwise import quantize_rowwise
from coolsd_rt.workflows.build.accuracy import Loss

Form = Literal["rowwise", "block"]


@dataclass(frozen=True)
class MatrixForms:
    """Of one graph. rowwise: shapes (K, N) of matrices in the row-wise form; all others are by blocks.

    unsigned: as in `quantize_rowwise`. losses: of the row-wise form, by a matrix's name; where one is too large, that
    matrix is by blocks.
    """

    rowwise: frozenset[tuple[int, int]] = frozenset()
    unsigned: bool = False
    losses: Mapping[str, Loss] = field(default_factory=dict)

    @staticmethod
    def of(record: Mapping[str, Any] | None, graph: str) -> MatrixForms:
        """What the record says of the graphs of stage `graph`. None: no record, all by blocks."""
        if record is None:
            return MatrixForms()
        chosen = [m for m in record["matrices"] if m["graph"] == graph and m["form"] == "rowwise"]
        return MatrixForms(frozenset((m["rows"], m["columns"]) for m in chosen), bool(record["unsigned"]))

    @property
    def lossy(self) -> dict[str, Loss]:
        """Matrices that are by blocks because the row-wise form loses too much."""
        return {name: loss for name, loss in self.losses.items() if loss.too_large}

    def quantize(self, outline: Outline) -> tuple[list[str], list[str]]:
        """Quantize every constant matrix of an outline; the names of those row-wise, and of those by blocks."""
        shapes = {t.name: tuple(t.dims) for t in outline.model.graph.initializer}
        names = [n for n in constant_products(outline.model.graph) if shapes[n] in self.rowwise and n not in self.lossy]
        return quantize_rowwise(outline, names, unsigned=self.unsigned), quantize(outline)

    def facts(self, rowwise: int) -> dict[str, Any]:
        """JSON data for the manifest. rowwise: how many matrices got that form."""
        if not self.rowwise:
            return {}
        losses = [loss.rowwise for loss in self.losses.values() if not loss.too_large]
        return {
            "rowwise_matrices": rowwise,
            "rowwise_loss": {
                "mean": float(f"{sum(losses) / max(1, len(losses)):.3g}"),
                "worst": float(f"{max(losses, default=0.0):.3g}"),
            },
            "too_lossy": {name: loss.as_dict() for name, loss in self.lossy.items()},
        }
