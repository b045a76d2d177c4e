"""A graph module with lazy weights: traced without them, or run with one of them in memory at a time.

Knows modules and lazy tensors. Does not know ONNX, nor which model it is given. Small tensors are always read: an
exporter may look at their values. Only modules without children keep large lazy tensors, since a module's weights are
read when the module is called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from coolsd_rt.models.lazy import Lazy, value

# Largest number of elements of a tensor that exporters fold, join and compare as a constant.
SMALL = 8192


def _kept(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str, Lazy, bool]]:
    """Yield every lazy tensor: its name, the dictionary and key that hold it, the tensor, and whether it is large.

    A tensor that two modules share comes up under both names.
    """
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for place in (owner._parameters, owner._buffers):
            for key, found in list(place.items()):
                if isinstance(found, Lazy):
                    large = found.ndim > 1 and found.numel() > SMALL and not any(True for _ in owner.children())
                    yield f"{prefix}.{key}".removeprefix("."), place, key, found, large


def _parameter(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)


@contextlib.contextmanager
def _replaced() -> Iterator[list[tuple[dict[str, Any], str, Lazy]]]:
    """Yield a list of replaced entries, and restore them at exit.

    The blocks of a graph share modules with the network they were made from, so replacements must not outlive the
    export.
    """
    places: list[tuple[dict[str, Any], str, Lazy]] = []
    try:
        yield places
    finally:
        for place, key, before in reversed(places):
            place[key] = before


def is_hollow(x: object) -> bool:
    """Return whether x is a placeholder of `hollow`: a tensor that expands a single number to its shape."""
    return isinstance(x, Tensor) and x.ndim > 1 and x.numel() > 1 and not any(x.stride())


@contextlib.contextmanager
def hollow(module: nn.Module) -> Iterator[dict[str, Lazy]]:
    """Replace large lazy tensors of `module` by placeholders without content inside the context; read the small ones.

    Yields the replaced lazy tensors by name.
    """
    with _replaced() as places:
        large: dict[str, Lazy] = {}
        made: dict[int, nn.Parameter] = {}
        for name, place, key, found, is_large in _kept(module):
            if is_large:
                large[name] = found
            if id(found) not in made:
                empty = torch.zeros((), dtype=found.dtype).expand(found.shape)
                made[id(found)] = _parameter(empty if is_large else value(found))
            places.append((place, key, found))
            place[key] = made[id(found)]
        yield large


@contextlib.contextmanager
def streamed(module: nn.Module) -> Iterator[nn.Module]:
    """Make `module` callable inside the context, with one large lazy weight in memory at a time.

    Each is read before a call of its owner, and dropped afterwards.
    """
    handles: list[Any] = []
    with _replaced() as places:
        waiting: list[tuple[dict[str, Any], str, Lazy, nn.Module]] = []
        owners = {id(m._parameters): m for m in module.modules()} | {id(m._buffers): m for m in module.modules()}
        for _, place, key, found, is_large in _kept(module):
            if is_large:
                waiting.append((place, key, found, owners[id(place)]))
            else:
                places.append((place, key, found))
                place[key] = _parameter(value(found))
        for place, key, found, owner in waiting:
            handles.append(owner.register_forward_pre_hook(_reader(place, key, found)))
            handles.append(owner.register_forward_hook(_dropper(place, key, found), always_call=True))
        try:
            yield module
        finally:
            for handle in handles:
                handle.remove()


def _reader(place: dict[str, Any], key: str, found: Lazy) -> Any:
    def read(module: nn.Module, args: Any) -> None:
        place[key] = _parameter(value(found))

    return read


def _dropper(place: dict[str, Any], key: str, found: Lazy) -> Any:
    def drop(module: nn.Module, args: Any, output: Any) -> None:
        place[key] = found

    return drop
