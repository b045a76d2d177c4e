"""Weights that stay in their file until somebody wants their values: a tensor of a shape, and how to make it.

A network can be larger than memory. Its lazy tensors go through the slicing, joining and scaling that makes a graph
out of it as real ones do, but only shapes are computed; `value()` then does the same work on one tensor's numbers.
Knows torch's dispatch. Does not know networks or files: a source is a function. No operation that writes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Memo = dict[int, Any]


class Lazy(Tensor):
    """A tensor without memory. `source`: makes its numbers, given what was already made in the same call."""

    source: Callable[[Memo], Tensor]

    @staticmethod
    def __new__(cls, like: Tensor, source: Callable[[Memo], Tensor], requires_grad: bool = False) -> Lazy:
        """like: a tensor of its shape, strides and dtype, on the device meta."""
        made = Tensor._make_wrapper_subclass(
            cls,
            like.shape,
            like.stride(),
            like.storage_offset(),
            dtype=like.dtype,
            device=torch.device("cpu"),
            requires_grad=requires_grad,
        )
        made.source = source
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # as torch calls it
        return f"Lazy({list(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares the function that switches it off
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            raise TypeError(f"{func} writes in place, and a lazy tensor has no place")
        shapes = func(*tree_map(_shape_only, tuple(args)), **tree_map(_shape_only, dict(kwargs)))
        call = _Call(func, tuple(args), dict(kwargs))
        if isinstance(shapes, Tensor):
            return Lazy(shapes, call)
        if isinstance(shapes, list | tuple):
            return type(shapes)(Lazy(shape, partial(_part, call, i)) for i, shape in enumerate(shapes))
        return shapes


def _part(call: _Call, index: int, memo: Memo) -> Tensor:
    return cast(Tensor, call(memo)[index])


class _Call:
    """One operation on tensors of which some are lazy; done once in a call of `value`, however many want it."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._func, self._args, self._kwargs = func, args, dict(kwargs)

    def __call__(self, memo: Memo) -> Any:
        if id(self) not in memo:
            args, kwargs = tree_map(lambda x: _made(x, memo), (self._args, self._kwargs))
            memo[id(self)] = self._func(*args, **kwargs)
        return memo[id(self)]


def _shape_only(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _made(x: Any, memo: Memo) -> Any:
    return x.source(memo) if isinstance(x, Lazy) else x


def lazy(shape: Sequence[int], dtype: torch.dtype, read: Callable[[], Tensor]) -> Lazy:
    """A tensor of that shape and dtype whose numbers `read` gives, each time they are wanted."""
    like = torch.empty(tuple(shape), dtype=dtype, device="meta")
    call = _Call(lambda: read(), (), {})
    return Lazy(like, call)


def value(x: Tensor) -> Tensor:
    """The numbers of a tensor, lazy or not. Raises what its source raises."""
    with torch.no_grad():
        return x.source({}) if isinstance(x, Lazy) else x.detach()
