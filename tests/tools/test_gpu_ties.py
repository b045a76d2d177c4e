"""Near ties between two loops: what rounding does is excused, and a wrong round is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coolsd_rt.device.engine import DeviceEngine  # noqa: E402
from coolsd_rt.runtime.randomness import uniform_table  # noqa: E402
from coolsd_rt.runtime.round import decode  # noqa: E402
from coolsd_rt.runtime.state import capacity  # noqa: E402
from tests.device.test_device_rounds import CASES, Case, draw, engine_of  # noqa: E402
from tests.tiny import VOCABULARY  # noqa: E402
from tools.gpu.ties import NEAR, HostLoop, Parting  # noqa: E402

WORDS = np.asarray([VOCABULARY.encode("red apple").ids] * 3 + [VOCABULARY.unconditional().ids] * 3)


def session_of(engine: Any, case: Case) -> Any:
    rows = WORDS if case.sampling.guided else WORDS[:3]
    return engine.open(engine.encode_condition(rows), capacity(engine.dims, case.law.length, paced=True))


def loop_of(engine: Any, case: Case, table: Any) -> HostLoop:
    return HostLoop(session_of(engine, case), case.law, case.sampling, table, case.forced, case.drafter)


def whole(engine: Any, case: Case, table: Any) -> Any:
    session = session_of(DeviceEngine(engine), case)
    return decode(session, case.law, case.sampling, table, case.forced, drafter=case.drafter).codes


@pytest.mark.parametrize("name", ["COOL-SD", "synthetic", "forced", "paced", "plain without CFG"])
def test_the_same_images_have_no_partings(name: str) -> None:
    case, table = CASES[name], uniform_table((1, 2, 3), 16, CASES[name].law.length)
    engine = engine_of(case)
    assert loop_of(engine, case, table).partings(whole(engine, case, table)) == []


def test_rounding_parts_images_at_near_ties_alone() -> None:
    """Weights moved by what float32 cannot tell apart well: few images part, each at a near tie."""
    case = CASES["COOL-SD"]
    engine, moved = engine_of(case), engine_of(case)
    with torch.no_grad():
        moved._target.output.weight.mul_(1 + 2e-5)
    found: list[Parting] = []
    for seed in range(0, 90, 3):
        table = uniform_table((seed, seed + 1, seed + 2), 16, case.law.length)
        found += loop_of(engine, case, table).partings(whole(moved, case, table))
    assert len(found) <= 4
    assert all(parting.near for parting in found)


def test_another_rule_is_no_near_tie() -> None:
    """A round that reads one uniform for another parts nearly every image, nearly never at a tie."""
    case = CASES["COOL-SD"]
    engine, found = engine_of(case), list[Parting]()
    for seed in range(0, 30, 3):
        table = uniform_table((seed, seed + 1, seed + 2), 16, case.law.length)
        found += loop_of(engine, case, table).partings(whole(engine, case, table[..., [1, 0, 2]]))
    assert len(found) >= 25
    assert sum(parting.near for parting in found) <= 2
    assert min(parting.margin for parting in found) >= 0
    assert NEAR < 1e-3


def test_draws_are_those_of_the_other_tests() -> None:
    case = CASES["lossless"]
    engine = engine_of(case)
    table = uniform_table((5, 6, 7), 16, 3)
    assert loop_of(engine, case, table).codes.shape == draw(engine, case, (5, 6, 7)).codes.shape
