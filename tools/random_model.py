"""Random weights of any published size of the families that draw images, with a spec: for speed and memory.

    python tools/random_model.py --family llamagen-t2i --size XL --grid 16 --out data/random
    coolsd-rt build data/random/llamagen-t2i-xl.yaml --precision int8

Writes target, EAGLE head and image tokenizer in our own files in half precision, what prompts are read with, and a
spec whose drafts are accepted at the rate that gives the paper's accept length. One tensor is in memory at a time.
The images mean nothing; how long they take, and what room they need, does not depend on the weights' values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from coolsd_rt import limits
from coolsd_rt.checkpoints.writer import write_safetensors
from coolsd_rt.cli.entry import enter, overwrite_option
from coolsd_rt.cli.numbers import number
from coolsd_rt.cli.paths import WRITES_IN
from coolsd_rt.cli.terminal import say
from coolsd_rt.errors import UserError
from coolsd_rt.models.config import DecoderConfig, VQConfig
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle, EagleConfig
from coolsd_rt.models.families import FAMILIES, FAMILY_KEY, Family, family_of
from coolsd_rt.models.families.chameleon import CODES
from coolsd_rt.models.families.llama import LlamaConfig
from coolsd_rt.models.vq import VQTokenizer
from coolsd_rt.prompts.tokens import FIRST, JANUS_PAD, TEMPLATES, Layout
from coolsd_rt.store.outputs import check_output, write_output
from coolsd_rt.store.weights import TensorInfo
from coolsd_rt.workflows.precompute import _packed
from tools.gpu.sizes import constant_rate

PROMPTS = ("a red apple", "a blue star")
LENGTH = 5
LAYOUTS: dict[str, Layout] = {"lumina-mgpt": "lumina", "anole": "anole", "janus-pro": "janus"}
ACCEPT_LENGTH = {"lumina-mgpt": 3.11}  # of COOL-SD at delta 1.1 in the paper; elsewhere LlamaGen-XL's
_SPREAD = 0.02  # of the weights: features and logits of a size that halves can hold


@dataclass(frozen=True)
class Pipeline:
    """What is written: the target, its image tokenizer, the most tokens a round drafts, and the files' name."""

    name: str
    target: DecoderConfig
    image: VQConfig
    length: int = LENGTH

    @property
    def draft(self) -> EagleConfig:
        """One layer of the target's width. Source: EAGLE."""
        layer = self.target.layer
        return EagleConfig(layer.dim, layer.heads, layer.ffn, layer.norm_eps, kv_heads=layer.kv_heads)


def image_families() -> Mapping[str, Family]:
    """The families with published models, without those that write texts: these have no image tokenizer."""
    return {name: f for name, f in FAMILIES.items() if f.models and not issubclass(f.config, LlamaConfig)}


def published(family: str, size: str, grid: int | None = None, layers: int | None = None) -> Pipeline:
    """A published model. grid: codes along one side; None is the smallest image it was trained on. layers: fewer
    than it has, to measure by.

    Raises UserError: no such family or size, a family without published models, or one that writes texts.
    """
    known = image_families()
    if family not in known:
        raise UserError("--family", expected=f"one of {', '.join(known)}", found=family)
    found = known[family]
    if size not in found.models:
        raise UserError("--size", expected=f"one of {', '.join(found.models)}", found=size)
    sizes: dict[str, Any] = dict(found.models[size])
    sizes |= {"layers": layers or sizes["layers"], "grid": grid or min(found.sizes) // found.cell}
    image = VQConfig()
    if family in ("lumina-mgpt", "anole"):
        sizes |= {"vocab": CODES + (2 if family == "lumina-mgpt" else 0), "text": 65536}
        image = replace(image, codebook_size=CODES, codebook_dim=256, low_attention=False, unit_codes=False)
    else:
        sizes |= {"vocab": 16384}
    if family == "janus-pro":
        sizes |= {"text": 102400, "head": sizes["dim"]}
    return Pipeline(f"{family}-{size.lower()}", found.config(**sizes), image)


_FILES = ("{}.safetensors", "{}-draft.safetensors", "{}-vq.safetensors", "{}.yaml")
_OF_PROMPTS = {"text": "{}-features.safetensors", "tokens": "{}-tokenizer.json"}


def write_pipeline(folder: Path, made: Pipeline, seed: int = 0, *, overwrite: bool = False) -> Path:
    """All files of a pipeline in `folder`; returns the spec. overwrite: files of these names may be replaced.

    Raises UserError: there are such files. CoolsdError: no space, no folder.
    """
    prompts = _OF_PROMPTS.get(made.target.condition)
    for name in (*_FILES, *([prompts] if prompts else [])):
        check_output(folder / name.format(made.name), "--out", overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    draft, image, spec = (folder / name.format(made.name) for name in _FILES[1:])
    write_target(folder, made, seed, overwrite=overwrite)
    _weights(draft, lambda: Eagle(made.draft), asdict(made.draft), seed + 1, overwrite)
    _weights(image, lambda: VQTokenizer(made.image), asdict(made.image), seed + 2, overwrite)
    write_output(spec, _spec(made, _condition(folder, made, seed + 3, overwrite)).encode(), overwrite=overwrite)
    return spec


def write_target(folder: Path, made: Pipeline, seed: int = 0, *, overwrite: bool = False) -> Path:
    """The target's weights alone; returns their file."""
    header = asdict(made.target) | {FAMILY_KEY: family_of(made.target).name}
    path = folder / f"{made.name}.safetensors"
    _weights(path, lambda: Decoder(made.target), header, seed, overwrite)
    return path


def _weights(
    path: Path, network: Callable[[], nn.Module], config: Mapping[str, Any], seed: int, overwrite: bool
) -> None:
    with torch.device("meta"):
        state = network().state_dict()
    generator = torch.Generator().manual_seed(seed)

    def read(name: str) -> Tensor:
        shape = state[name].shape
        if name.endswith("bias"):
            return torch.zeros(shape, dtype=torch.float16)
        if "norm" in name:
            return torch.ones(shape, dtype=torch.float16)
        return (torch.randn(shape, generator=generator) * _SPREAD).half()

    tensors = [(name, TensorInfo("F16", tuple(t.shape))) for name, t in state.items()]
    write_safetensors(path, tensors, {"config": json.dumps(dict(config))}, read, overwrite=overwrite)


def _condition(folder: Path, made: Pipeline, seed: int, overwrite: bool) -> str:
    """The spec's condition, and its files."""
    target = made.target
    if target.condition == "class":
        return f"{{kind: class, classes: {target.condition_size[0] - 1}}}"
    if target.condition == "text":
        generator = torch.Generator().manual_seed(seed)
        width = target.condition_size[1]
        rows = {p: torch.randn((min(6, target.prefix), width), generator=generator).numpy() for p in PROMPTS}
        name = _OF_PROMPTS["text"].format(made.name)
        write_output(folder / name, _packed(rows, "random", target.prefix, "bf16"), overwrite=overwrite)
        return f"{{kind: t5, length: {target.prefix}, features: {name}}}"
    name, layout = _OF_PROMPTS["tokens"].format(made.name), LAYOUTS[family_of(target).name]
    write_output(folder / name, _tokenizer(TEMPLATES[layout]).encode(), overwrite=overwrite)
    pixels = target.layout.rows * made.image.downsampling
    size = f", width: {pixels}, height: {pixels}" if layout == "lumina" else ""
    return f"{{kind: tokens, tokenizer: {name}, length: {target.prefix}, layout: {layout}{size}}}"


def _tokenizer(template: str) -> str:
    """A tokenizer that knows the template's marks and the two prompts' words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    marks = [*FIRST.values(), JANUS_PAD, "<unk>", "<reserved08706>", "<|User|>", "<|Assistant|>", "<begin_of_image>"]
    words = " ".join((*PROMPTS, template)).split()
    ids = {word: n for n, word in enumerate(dict.fromkeys([*marks, *words]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(marks)
    text: str = tokenizer.to_str()
    return text


def _spec(made: Pipeline, condition: str) -> str:
    family = family_of(made.target).name
    rate = constant_rate(ACCEPT_LENGTH.get(family, 2.73), made.length)
    rates = ", ".join([f"{rate:.4f}"] * made.length)
    return f"""\
# Random weights, written by tools/random_model.py: for speed and memory, never for images.
version: 1
name: {made.name}
target: {{model: {family}, weights: {made.name}.safetensors}}
draft: {{model: eagle, weights: {made.name}-draft.safetensors, length: {made.length}}}
image: {{tokenizer: vq, weights: {made.name}-vq.safetensors}}
condition: {condition}
schedule: {{kind: none}}
resampler: {{kind: target}}
acceptance: {{rule: synthetic, rates: [{rates}]}}
sampling: {{cfg_scale: 7.5, top_k: 1000}}
engine: {{backend: onnxruntime, precision: int8, max_batch: 1}}
"""


@click.command()
@click.option("--family", required=True, help="Model family, as in a spec's target.model, for example llamagen-t2i.")
@click.option("--size", required=True, help="Size of a published model, for example XL.")
@click.option("--out", type=WRITES_IN, required=True, help="Output folder.")
@click.option(
    "--grid", type=number(limits.GRID), help="Number of codes along one side; default: that of the smallest image."
)
@click.option("--layers", type=number(limits.LAYERS), help="Number of layers, if fewer than the model's.")
@click.option("--seed", type=number(limits.TRAIN_SEED), default=0, show_default=True)
@overwrite_option
def command(
    family: str, size: str, out: Path, grid: int | None, layers: int | None, seed: int, overwrite: bool
) -> None:
    """Write random weights of a published size, and a spec that names them."""
    spec = write_pipeline(out, published(family, size, grid, layers), seed, overwrite=overwrite)
    say(spec)


if __name__ == "__main__":
    enter(command)
