"""Loads networks that another library defines. Everything comes from the files, nothing from defaults.

`from_pretrained` fills missing tensors with random numbers, and missing config keys with the sizes of some published
model. Instead:

    1. Read config.json strictly, with a schema of the keys that define the network (`read_config`).
    2. Check the weights' headers, and those of shards against their index (`find_weights`).
    3. Compare layers, names, shapes and dtypes in the headers with the network of that config, built without memory
       (`load_network`). Only then read tensors.
    4. Let the library fill the network from these tensors. Its loading information must be empty, and every tensor of
       the network must equal, bit for bit, one that was read (`check_filled`).

Loading uses no random numbers. Every error is a UserError that names the file and the field or tensor.

Knows config.json, safetensors, shards, and transformers' loading information. Does not know which networks there are.
Needs torch and transformers from step 3 on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.limits import INDEX_BYTES, SHARDS
from coolsd_rt.pretrained.settings import FETCH_AGAIN, Schema, read_config
from coolsd_rt.shown import shorten
from coolsd_rt.store.weights import TensorInfo, check_safetensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_FLOATS = ("F32", "F16", "BF16")
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")


class _Index(Schema):
    weight_map: dict[str, str]


@dataclass(frozen=True)
class PretrainedWeights:
    """The tensors of a folder by name, from headers only.

    where: the file that lists them. files: tensor name to its file.
    """

    where: Path
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path] = field(repr=False)

    @property
    def parts(self) -> list[Path]:
        """The distinct files, sorted."""
        return sorted(set(self.files.values()))

    def layers(self, prefix: str) -> int:
        """Count the distinct numbers after `prefix` in the names: the layers of a network."""
        pattern = re.compile(re.escape(prefix) + r"\.([0-9]{1,9})\.")
        return len({found.group(1) for name in self.tensors if (found := pattern.match(name))})


def find_weights(folder: Path, what: str, *, fix: str = FETCH_AGAIN) -> PretrainedWeights:
    """Find the safetensors of a folder: one file, or the shards that its index names. Reads no tensor.

    Raises UserError if there are none, a file is incomplete, or the index leaves the folder or disagrees with its
    shards.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if os.path.lexists(single):
        tensors = header_of(single)
        return PretrainedWeights(single, tensors, dict.fromkeys(tensors, single))
    if not os.path.lexists(index):
        others = sorted(p.name for p in folder.glob("*.bin")) if folder.is_dir() else []
        found = f"no {WEIGHTS_FILE}" + (f" (pickles such as {shorten(others[0])} are not read)" if others else "")
        raise UserError(str(folder), expected=f"{what} in safetensors", found=found, fix=fix)
    return _sharded(folder, index, fix)


def _sharded(folder: Path, index: Path, fix: str) -> PretrainedWeights:
    places = read_config(index, _Index, "an index of shards", limit=INDEX_BYTES, fix=fix).weight_map
    names = sorted(set(places.values()))
    if len(names) not in SHARDS:
        expected = f"{SHARDS.low} to {SHARDS.high} shards"
        raise UserError(f"{index}: weight_map", expected=expected, found=str(len(names)), fix=fix)
    for name in names:
        if not _SHARD.fullmatch(name):
            expected = "the name of a safetensors file in the same folder"
            raise UserError(f"{index}: weight_map", expected=expected, found=f"'{shorten(name)}'", fix=fix)
    tensors: dict[str, TensorInfo] = {}
    for name in names:
        for tensor, info in header_of(folder / name).items():
            if places.get(tensor) != name:
                found = f"'{shorten(places[tensor])}'" if tensor in places else "none"
                raise UserError(
                    f"{index}: {shorten(tensor, 120)}", expected=f"'{name}', which holds it", found=found, fix=fix
                )
            tensors[tensor] = info
    for tensor, name in places.items():
        if tensor not in tensors:
            found = f"none in {name}"
            raise UserError(f"{index}: {shorten(tensor, 120)}", expected="a tensor", found=found, fix=fix)
    return PretrainedWeights(index, tensors, {tensor: folder / name for tensor, name in places.items()})


def missing_files(folder: Path, *others: str) -> list[str]:
    """Return the files that a folder lacks: of `others`, and of its weights. Detects interrupted downloads.

    Raises UserError if the index cannot be read.
    """
    names = [WEIGHTS_FILE]
    if not os.path.lexists(folder / WEIGHTS_FILE) and os.path.lexists(folder / INDEX_FILE):
        places = read_config(folder / INDEX_FILE, _Index, "an index of shards", limit=INDEX_BYTES).weight_map
        names = sorted(set(places.values()))
    return [name for name in (*others, *names) if not os.path.exists(folder / name)]


def header_of(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of one file. Raises UserError if it is not a plain file or not complete safetensors."""
    return check_safetensors(path).tensors


@dataclass(frozen=True)
class Recipe:
    """How the files of a network map to the library's class.

    Attributes:
        network: the class, such as T5EncoderModel.
        config: the library's config, made of validated keys only.
        layers: config key to its number of layers and the prefix of these layers' tensor names.
        dropped: prefixes of tensors that a checkpoint has and this network does not.
        twins: alternative name, under which some checkpoints store a tensor, to its name.
    """

    network: Any
    config: Any
    layers: Mapping[str, tuple[int, str]]
    dropped: tuple[str, ...] = ()
    twins: Mapping[str, str] = field(default_factory=dict)


def load_network(
    folder: Path, weights: PretrainedWeights, recipe: Recipe, dtype: Any, *, fix: str = FETCH_AGAIN
) -> Any:
    """Return the network in evaluation mode, filled from `weights` and cast to `dtype`.

    Raises UserError: see the module.
    """
    import torch

    for key, (said, prefix) in recipe.layers.items():
        if (count := weights.layers(prefix)) != said:
            expected = f"{count}, the layers {prefix}.N in {weights.where.name}"
            raise UserError(f"{folder / CONFIG_FILE}: {key}", expected=expected, found=str(said), fix=fix)
    with quiet_transformers():
        with torch.device("meta"):
            wanted = {k: tuple(v.shape) for k, v in recipe.network(recipe.config).state_dict().items()}
        wanted = {name: shape for name, shape in wanted.items() if name not in recipe.twins}
        names = _compare(weights, wanted, recipe, fix)
        tensors = {name: _read(weights, file_name, dtype, fix) for name, file_name in names.items()}
        for twin, name in recipe.twins.items():
            if twin in weights.tensors and names[name] != twin:
                _same(weights, twin, tensors[name], name, dtype, fix)
        network, info = recipe.network.from_pretrained(
            None, config=recipe.config, state_dict=dict(tensors), dtype=dtype, output_loading_info=True
        )
    _check_info(info, weights.where, fix)
    twins = {twin: tensors[name] for twin, name in recipe.twins.items()}
    check_filled(network, {**tensors, **twins}, weights.where, fix=fix)
    return network.eval().requires_grad_(False)


_REPORT = {
    "missing_keys": "a missing tensor",
    "unexpected_keys": "a surplus tensor",
    "mismatched_keys": "another shape",
}


def _check_info(info: Mapping[str, Any], where: Path, fix: str) -> None:
    """Raise UserError unless the library's loading information is empty."""
    for kind, keys in info.items():
        if keys:
            found = f"{_REPORT.get(kind, 'an error of the library')}: {shorten(str(next(iter(keys))), 120)}"
            raise UserError(str(where), expected="all tensors of the network", found=found, fix=fix)


def _compare(
    weights: PretrainedWeights, wanted: Mapping[str, tuple[int, ...]], recipe: Recipe, fix: str
) -> dict[str, str]:
    """Map each required tensor to its name in the file.

    Raises UserError: missing, wrong shape or dtype, or unexpected.
    """
    stored = {name: twin for twin, name in recipe.twins.items() if twin in weights.tensors}
    names = {name: name if name in weights.tensors else stored.get(name, name) for name in wanted}
    check_names(
        [name for name, file_name in names.items() if file_name in weights.tensors],
        wanted,
        weights.where,
        fix=fix,
    )
    known = {*wanted, *recipe.twins}
    for name in weights.tensors:
        if name not in known and not name.startswith(recipe.dropped):
            allowed = f", nor one that starts with {' or '.join(recipe.dropped)}" if recipe.dropped else ""
            expected = f"only tensors of the network{allowed}"
            raise _unexpected(weights.where, name, expected, fix)
    for name, shape in wanted.items():
        info = weights.tensors[names[name]]
        where = f"{weights.files[names[name]]}: {names[name]}"
        if info.shape != shape:
            expected = f"{list(shape)}, as {CONFIG_FILE} says"
            raise UserError(where, expected=expected, found=str(list(info.shape)), fix=fix)
        if info.dtype not in _FLOATS:
            raise UserError(where, expected=f"one of {', '.join(_FLOATS)}", found=info.dtype, fix=fix)
    return names


def check_names(found: Collection[str], wanted: Collection[str], where: Path, *, fix: str = FETCH_AGAIN) -> None:
    """Raise UserError if a required name is missing: the network would keep random numbers there."""
    there = set(found)
    if missing := [name for name in wanted if name not in there]:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        found_words = f"no tensor {shorten(missing[0], 120)}{more}"
        raise UserError(str(where), expected="all tensors of the network", found=found_words, fix=fix)


def _unexpected(where: Path, name: str, expected: str, fix: str) -> UserError:
    return UserError(str(where), expected=expected, found=f"the tensor {shorten(name, 120)}", fix=fix)


def _read(weights: PretrainedWeights, name: str, dtype: Any, fix: str) -> Any:
    """Read and copy one tensor: the original is memory-mapped, and the file may change."""
    import torch
    from safetensors import safe_open

    with safe_open(str(weights.files[name]), framework="pt") as file:
        value = file.get_tensor(name).to(dtype, copy=True)
    if not bool(torch.isfinite(value).all()):
        where = f"{weights.files[name]}: {name}"
        raise UserError(where, expected="finite numbers", found="NaN or infinite ones", fix=fix)
    return value


def _same(weights: PretrainedWeights, twin: str, value: Any, name: str, dtype: Any, fix: str) -> None:
    """Check that a tensor stored under two names has equal values, since which one the library reads is undefined."""
    import torch

    if weights.tensors[twin].shape != tuple(value.shape) or not torch.equal(_read(weights, twin, dtype, fix), value):
        where = f"{weights.files[twin]}: {twin}"
        raise UserError(where, expected=f"the same tensor as {name}", found="another", fix=fix)


def check_filled(
    network: Any, tensors: Mapping[str, Any], where: Path, *, surplus: bool = False, fix: str = FETCH_AGAIN
) -> None:
    """Raise UserError unless `network` and `tensors` have the same names and bitwise equal values.

    For networks that a package fills by itself. The network's integer tensors (positions, counters), which converted
    files do not contain, may be missing. surplus: ignore tensors that the network does not have.
    """
    import torch

    state = network.state_dict()
    check_names(tensors, [name for name, value in state.items() if value.is_floating_point()], where, fix=fix)
    for name, value in tensors.items():
        if name not in state:
            if surplus:
                continue
            raise _unexpected(where, name, "only tensors of the network", fix)
        here = state[name]
        if here.is_meta or here.shape != value.shape or not torch.equal(here.cpu(), value.to(here.dtype).cpu()):
            found = "another value after loading"
            raise UserError(f"{where}: {shorten(name, 120)}", expected="the file's tensor", found=found, fix=fix)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Disable transformers' progress bars and warnings within the block: this module checks what they would warn of."""
    from transformers.utils import logging

    library: Any = logging  # its functions have no types
    said, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(said)
        if bars:
            library.enable_progress_bar()
