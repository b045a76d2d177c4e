"""Windows of drafts with everything that goes wrong in them, and the reference's word on each row alone."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coolsd_rt import ops as reference
from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops.gpu import FAULT_DRAFT, FAULT_TOTAL

Window = dict[str, Any]  # the keyword arguments of coolsd::verify


def fresh() -> torch.Generator:
    """A new seed each time, printed: pytest shows it where a test fails."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


def uniforms(rng: torch.Generator, *shape: int) -> Tensor:
    """float32 on the grid of 24 bits, as the loop draws them."""
    return (torch.randint(0, 2**24, shape, generator=rng).double() * 2.0**-24).float()


def laws(rng: torch.Generator, rows: int, vocab: int) -> Tensor:
    """[rows, V] float32 of five kinds: long tails, zeros, few distinct values, filtered, a point mass."""
    weights = torch.empty(rows, vocab).exponential_(generator=rng) ** 2
    kind = torch.randint(0, 5, (rows, 1), generator=rng)
    weights = torch.where((kind == 1) & (torch.rand(rows, vocab, generator=rng) < 0.5), 0.0, weights)
    weights = torch.where(kind == 2, torch.randint(0, 4, (rows, vocab), generator=rng).float(), weights)
    weights = torch.where((kind == 3) & (weights < weights.amax(-1, keepdim=True) * 0.3), 0.0, weights)
    point = torch.randint(0, vocab, (rows, 1), generator=rng)
    weights = torch.where(kind == 4, (torch.arange(vocab) == point).float(), weights)
    weights[:, -1] += weights.sum(-1) == 0  # nothing else was left
    return weights / weights.sum(-1, keepdim=True)


def window(rng: torch.Generator, images: int, length: int, vocab: int) -> Window:
    """A sound window: some Q equal to P, some nearly, some positions forced, some drafts past the end."""
    p = laws(rng, images * (length + 1), vocab).reshape(images, length + 1, vocab)
    q = laws(rng, images * length, vocab).reshape(images, length, vocab)
    kind = torch.randint(0, 4, (images, length, 1), generator=rng)
    q = torch.where(kind == 0, p[:, :length], q)
    noise = 1 + 1e-7 * torch.randn(q.shape, generator=rng)
    q = torch.where(kind == 1, p[:, :length] * noise, q)
    drawn = uniforms(rng, images, length)
    return {
        "target": p, "draft": q, "tokens": reference.sample(q, drawn) if length else torch.zeros(images, 0).long(),
        "num_drafts": torch.randint(0, length + 1, (images,), generator=rng).clamp_min(min(length, 1)),
        "omegas": torch.rand(length, generator=rng, dtype=torch.float64) * 1.5 + 0.2,
        "u_accept": uniforms(rng, images, length), "u_resample": uniforms(rng, images, length + 1),
        "forced": torch.rand(images, length, generator=rng) < 0.2, "rates": None,
    }  # fmt: skip


def broken(rng: torch.Generator, given: Window) -> Window:
    """The same with a wound in about half of the rows: NaN, infinity, Q = 0 at a draft, an empty P."""
    given = {key: value.clone() if value is not None else None for key, value in given.items()}
    images, length = given["tokens"].shape
    for m in range(images):
        wound, i = (int(torch.randint(0, n, (), generator=rng)) for n in (11, length))
        if wound == 0:
            given["target"][m, i] = torch.nan
        elif wound == 1:
            given["draft"][m, i] = torch.nan
        elif wound == 2:
            given["draft"][m, i, given["tokens"][m, i]] = 0.0
        elif wound == 3:
            given["target"][m, i] = 0.0
        elif wound == 4:
            given["target"][m, i, 0] = torch.inf
        elif wound == 5:
            given["target"][m, i, -1] = torch.nan
        elif wound == 6:
            given["draft"][m, i, given["tokens"][m, i] - 1] = torch.nan
    return given


class Row(NamedTuple):
    """What the reference says of one row; only the fault counts where there is one."""

    fault: int
    told: tuple[int, int, bool] | None


def alone(given: Window, resampler: Any) -> list[Row]:
    """The reference on each row by itself: it raises for a batch at once."""
    rows = []
    shared = ("omegas", "rates")
    for m in range(len(given["tokens"])):
        own = {key: value if key in shared or value is None else value[m : m + 1] for key, value in given.items()}
        try:
            verdict = reference.verify(**own, resampler=resampler)
        except CoolsdError as error:
            rows.append(Row(FAULT_DRAFT if "drafted token" in error.what else FAULT_TOTAL, None))
        else:
            rows.append(Row(0, (int(verdict.accepted), int(verdict.token), bool(verdict.degenerate))))
    return rows


def agree(results: tuple[Tensor, Tensor, Tensor, Tensor], rows: list[Row], vocab: int) -> None:
    """Assert that each row of an operator's results is what the reference says of it."""
    accepted, token, degenerate, fault = (result.tolist() for result in results)
    assert all(0 <= code < vocab for code in token)
    for m, row in enumerate(rows):
        found = None if fault[m] else (accepted[m], token[m], degenerate[m])
        assert found == row.told, f"row {m}"
        assert bool(fault[m] & row.fault) == bool(row.fault), f"row {m}"
