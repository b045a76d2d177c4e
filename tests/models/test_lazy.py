"""Lazy tensors: what they do to shapes at once and to numbers later, and networks that are made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from coolsd_rt.checkpoints.load import load_draft, load_target
from coolsd_rt.errors import UserError
from coolsd_rt.models.header import read_config
from coolsd_rt.models.lazy import Lazy, lazy, value
from tests.tiny import write_weights


class Source:
    def __init__(self, *shape: int) -> None:
        self.made, self.reads = torch.randn(shape), 0

    def __call__(self) -> torch.Tensor:
        self.reads += 1
        return self.made


def test_numbers_are_made_when_they_are_wanted_and_once() -> None:
    source = Source(12, 4)
    x = nn.Parameter(lazy((12, 4), torch.float32, source), requires_grad=False)
    q, k, v = x.split((4, 4, 4))
    joined = torch.cat([q * 0.5, k, v]).detach().T.contiguous()
    assert isinstance(joined, Lazy)
    assert joined.shape == (4, 12)
    assert source.reads == 0
    wanted = torch.cat([source.made[:4] * 0.5, source.made[4:]]).T
    assert torch.equal(value(joined), wanted)
    assert source.reads == 1
    assert value(joined).is_contiguous()
    assert torch.equal(value(x[2:5].to(torch.float64)), source.made[2:5].double())


def test_it_cannot_be_written_in_place() -> None:
    with pytest.raises(TypeError, match="in place"):
        lazy((2,), torch.float32, lambda: torch.zeros(2)).add_(1)


def test_a_real_tensor_is_its_own_value() -> None:
    x = torch.randn(3)
    assert torch.equal(value(nn.Parameter(x)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_lazy_network_has_the_same_numbers(tiny_spec: Path, dtype: torch.dtype) -> None:
    folder = tiny_spec.parent
    whole, parts = (load_target(folder / "target.safetensors", dtype, lazy=lazy) for lazy in (False, True))
    heads = [load_draft(folder / "draft.safetensors", whole, dtype, lazy=lazy) for lazy in (False, True)]
    for real, other in ((whole, parts), (heads[0], heads[1])):
        state = other.state_dict()
        assert all(isinstance(x, Lazy) for x in state.values())
        for name, wanted in real.state_dict().items():
            assert wanted.dtype == dtype
            assert torch.equal(value(state[name]), wanted), name
    assert torch.equal(whole.rope, parts.rope)
    assert whole.rope.dtype == dtype


def test_a_number_that_is_none_is_found_when_it_is_read(tiny_spec: Path, tmp_path: Path) -> None:
    path = tmp_path / "target.safetensors"
    tensors = load_file(str(tiny_spec.parent / "target.safetensors"))
    tensors["output.weight"][3, 4] = float("nan")
    holder = nn.Module()
    holder.state_dict = lambda: tensors  # type: ignore[method-assign,assignment]
    write_weights(path, holder, read_config(tiny_spec.parent / "target.safetensors"))
    network = load_target(path, lazy=True)
    with pytest.raises(UserError, match=r"output\.weight: expected finite numbers, found 1 of"):
        value(network.state_dict()["output.weight"])
    save_file(tensors, str(tmp_path / "bare.safetensors"))
    with pytest.raises(UserError, match="config"):  # the header is judged at once
        load_target(tmp_path / "bare.safetensors", lazy=True)
