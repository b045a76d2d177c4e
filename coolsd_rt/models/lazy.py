"""Tensors that stay in their file until their values are needed: a shape, and a function that produces the values.

A network can be larger than memory. Building a graph slices, joins and scales its lazy tensors like real ones, but
computes shapes only; `value()` then applies the same operations to the numbers of one tensor. Knows torch's dispatch.
Does not know networks or files: a source is a function. Operations that write in place are not supported.
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
    """A tensor without memory. source: produces its values, given a memo of values made in the same call."""

    source: Callable[[Memo], Tensor]

    @staticmethod
    def __new__(cls, like: Tensor, source: Callable[[Memo], Tensor], requires_grad: bool = False) -> Lazy:
        """Create a lazy tensor. like: a tensor of its shape, strides and dtype, on the device meta."""
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
    def __torch_dispatch__(  # type: ignore[override]  # torch declares a disabled implementation
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
    """An operation on tensors, some of them lazy; it runs once per call of `value`, however many results need it."""

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
    """Return a tensor of this shape and dtype; `read` returns its values each time they are needed."""
    like = torch.empty(tuple(shape), dtype=dtype, device="meta")
    call = _Call(lambda: read(), (), {})
    return Lazy(like, call)


def value(x: Tensor) -> Tensor:
    """Return the values of a tensor, lazy or not. Raises the errors of its source."""
    with torch.no_grad():
        return x.source({}) if isinstance(x, Lazy) else x.detach()
