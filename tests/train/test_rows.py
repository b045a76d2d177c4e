"""A row head in training: what it learns along images is what its steps draft, and what it does not go with is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coolsd_rt.checkpoints.load import load_rows
from coolsd_rt.errors import UserError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.row_config import RowConfig
from coolsd_rt.models.rows import RowHead
from coolsd_rt.train.acceptance import Tally
from coolsd_rt.train.networks import DraftSizes, config_of, make_student, write_weights
from coolsd_rt.train.row_students import RowStudent
from coolsd_rt.train.students import Example
from tests.tiny import TARGET, networks
from tests.train.training import request

ROW, TOKENS, WIDTH = TARGET.grid, TARGET.tokens, TARGET.prefix


def drafted(head: RowHead, target: Decoder, features: torch.Tensor, codes: torch.Tensor, begin: int) -> torch.Tensor:
    """Logits of a round that begins at token `begin`, by the contract's step on what is decided then alone."""
    decided, known = codes[:, :begin], features[:, : WIDTH + begin - 1]
    count = min(ROW - begin % ROW, TOKENS - begin, head.cfg.ahead if begin < ROW else ROW)
    above = np.clip(np.arange(begin - ROW, begin - ROW + count), 0, begin - 1)
    ends = np.array([np.clip(begin - ROW + count, 0, begin - 1), begin - 1])
    return head.step(
        target,
        decided[:, above],
        known[:, WIDTH - 1 + above],
        decided[:, ends],
        known[:, WIDTH - 1 + ends],
        torch.full((len(codes),), max(0, ROW - begin)),
    )


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_what_is_learned_is_what_a_round_drafts(ahead: int) -> None:
    """At every begin of a round, for every draft that it can have, and for no other."""
    target, _, _ = networks()
    torch.manual_seed(2)
    head = RowHead(RowConfig(TARGET.dim, ROW, 48, ahead)).requires_grad_(False)
    codes = torch.randint(0, TARGET.vocab, (3, TOKENS))
    text = torch.randint(0, TARGET.words, (3, WIDTH))
    found = RowStudent(head, target).along(Example(text, None, codes, None), ROW)
    logits, features = target(text, codes)
    assert torch.allclose(found.target, logits, atol=1e-5)
    assert found.valid is not None
    seen = torch.zeros_like(found.valid)
    for begin in range(1, TOKENS):
        wanted = drafted(head, target, features, codes, begin)
        for depth in range(wanted.shape[1]):
            assert torch.allclose(found.drafts[depth][:, begin + depth], wanted[:, depth], atol=1e-5), (begin, depth)
            seen[depth, begin + depth] = True
    assert torch.equal(seen, found.valid)


def test_rounds_are_counted_to_the_rows_end() -> None:
    """With every draft accepted, rounds begin at tokens that follow from the rows alone."""
    tokens, row, ahead, length = 12, 4, 2, 3
    begin, rounds = 1, 0
    while begin < tokens:
        most = min(length, row - begin % row, tokens - 1 - begin, ahead if begin < row else row)
        begin, rounds = begin + most + 1, rounds + 1
    from coolsd_rt.runtime.row_lengths import row_lengths

    tally = Tally((1.0,) * length, row_lengths(np.arange(tokens), row, ahead))
    ones = np.ones((2, length, 1, tokens))
    tally.add(ones, ones)
    assert tally.rounds == rounds
    assert tally.result().accept_length == (tokens - 1) / rounds


def test_a_head_of_other_rows_is_one_line(tmp_path: Path) -> None:
    target, _, _ = networks()
    file = tmp_path / "rows.safetensors"
    for sizes, said in (
        (RowConfig(TARGET.dim, 8, 48), f"row: expected the target's {ROW}, found 8"),
        (RowConfig(32, ROW, 48, 2), f"dim: expected the target's {TARGET.dim}, found 32"),
    ):
        write_weights(file, RowHead(sizes), config_of(RowHead(sizes)))
        with pytest.raises(UserError, match=said):
            load_rows(file, target)
    head = make_student("rows", DraftSizes(ffn=40), target, None, 0, 3).network
    assert isinstance(head, RowHead)
    assert head.cfg == RowConfig(TARGET.dim, ROW, 40, 3)
    write_weights(file, head, config_of(head))
    assert load_rows(file, target).cfg == head.cfg


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"own_steps": ROW + 1}, f"--own-steps: expected at most the row's {ROW} tokens, found {ROW + 1}"),
        ({"noise": 0.1}, "--noise: expected none for the kind rows, which is trained without, found 0.1"),
        ({"shape": DraftSizes(layers=2)}, "--layers: expected none for the kind rows"),
        ({"shape": DraftSizes(heads=2)}, "--heads: expected none for the kind rows"),
        ({"own_steps": 2, "start_from": Path("x.safetensors")}, "--own-steps: expected none with --from"),
    ],
)
def test_what_a_row_head_does_not_go_with(tiny_spec: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    from coolsd_rt.train.run import train_draft

    with pytest.raises(UserError, match=said):
        train_draft(request(tiny_spec, tmp_path / "r.safetensors", kind="rows", **more))
