"""Lumina-mGPT, Anole and Janus-Pro against transformers' own, tiny and random, through saved shards and `convert`.

What is compared: fp32 logits in prefill, single steps and verifications with rollback, with left padding and rows of
different length; and the tokenizers' decoders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coolsd_rt.checkpoints.convert import convert
from coolsd_rt.checkpoints.format import ConvertOptions
from coolsd_rt.checkpoints.load import load_target, load_tokenizer
from coolsd_rt.errors import UserError
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.families.anole import AnoleConfig
from coolsd_rt.models.families.chameleon import BEGIN_OF_IMAGE, END_OF_IMAGE, FIRST_CODE
from coolsd_rt.models.families.lumina import LINE_END, LuminaConfig, image_head
from coolsd_rt.models.vq import VQConfig, VQTokenizer
from tests.models.family_cases import ROWS, Image, eager, relative, stepped

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
PREFIX = 7
STARTS = torch.tensor([0, 3, PREFIX - 3])


def randomised(model: Any) -> Any:
    """Weights so large that logits differ, norms that are not ones."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1 or "_norm" in name:
                value.uniform_(0.5, 1.5)
            elif "head" in name:
                value.normal_(std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def chameleon() -> Any:
    config = transformers.ChameleonConfig(
        vocab_size=8900,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        vq_config={
            "base_channels": 32,
            "num_embeddings": 8,
            "embed_dim": 4,
            "latent_channels": 4,
            "channel_multiplier": [1, 2],
            "num_res_blocks": 1,
        },
        vocabulary_map={"<image>": 8711, **{f"IMGIMG{c}Z": 4 + i for i, c in enumerate("ABCDEFGH")}},
    )
    return randomised(transformers.ChameleonForConditionalGeneration(config))


@pytest.fixture(scope="module")
def janus() -> Any:
    llama = transformers.LlamaConfig(
        vocab_size=120,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
    )
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "projection_dim": 64,
        "depth": 2,
    }
    vq = {
        "embed_dim": 8,
        "num_embeddings": 48,
        "base_channels": 32,
        "channel_multiplier": [1, 2],
        "num_res_blocks": 1,
        "latent_channels": 32,
        "image_token_embed_dim": 64,
        "projection_dim": 64,
    }
    config = transformers.JanusConfig(text_config=llama.to_dict(), vision_config=vision, vq_config=vq)
    return randomised(transformers.JanusForConditionalGeneration(config))


def converted(model: Any, folder: Path, size: int | None, family: str | None = None, **options: Any) -> Path:
    """The model saved in shards, and what `convert` makes of them."""
    model.save_pretrained(folder / "published", max_shard_size="300KB")
    assert len(json.loads((folder / "published/model.safetensors.index.json").read_text())["weight_map"]) > 20
    assert len(list((folder / "published").glob("*.safetensors"))) > 3
    done = convert(folder / "published", folder / "ours.safetensors", family, ConvertOptions(size=size, **options))
    return done.path


def compare(target: Decoder, given: Image, reference: Any) -> None:
    """Steps against a whole pass of the reference: a function of a row to logits [W + tokens - 1, V]."""
    assert given.start is not None
    wanted = {row: reference(row) for row in range(ROWS)}
    checked = 0
    for row, at, logits, _ in stepped(target.cfg, given.tokens, eager(target, given)):
        begin = max(at, int(given.start[row]))
        found, right = logits[begin - at :], wanted[row][begin : at + len(logits)]
        assert relative(found, right) < TOLERANCE
        checked += len(found)
    assert checked > 40


@torch.no_grad()
def test_lumina_is_chameleon(chameleon: Any, tmp_path: Path) -> None:
    """Rows of their own lengths, without padding, in transformers; padded on the left, in one batch, here."""
    target = load_target(converted(chameleon, tmp_path, 512, "lumina-mgpt", prefix=PREFIX))
    cfg = target.cfg
    assert isinstance(cfg, LuminaConfig)
    assert (cfg.tokens, cfg.vocab, cfg.kv_heads, cfg.text, cfg.grid) == (32 * 33 + 1, 8194, 2, 8900, 32)
    prompt = torch.randint(10, 8200, (ROWS, PREFIX))
    prompt[:, -3:] = torch.tensor(image_head(cfg.grid))
    forced = torch.from_numpy(cfg.layout.forced)
    tokens = torch.where(forced >= 0, forced, torch.randint(0, 8192, (ROWS, cfg.tokens)))
    tokens[:, 5], tokens[:, 8] = 8192, 8193  # a line end and an end among the first, so that short steps meet them
    given = Image(prompt, tokens, STARTS)
    ids = torch.where(tokens == 8192, LINE_END, torch.where(tokens == 8193, END_OF_IMAGE, tokens + FIRST_CODE))

    def reference(row: int) -> Tensor:
        start = int(STARTS[row])
        whole = torch.cat([prompt[row, start:], ids[row, :40]])[None]
        hidden = chameleon.model(whole).last_hidden_state
        logits = chameleon.lm_head(hidden)[0, :, FIRST_CODE : FIRST_CODE + 8192]
        return torch.cat([torch.zeros(start, 8192), logits])

    compare(target, given, reference)


@torch.no_grad()
def test_anole_is_chameleon(chameleon: Any, tmp_path: Path) -> None:
    """By attention mask and position ids, padded as LANTERN pads: two prompts, and the unconditional row."""
    target = load_target(converted(chameleon, tmp_path, None, "anole", prefix=PREFIX))
    cfg = target.cfg
    assert isinstance(cfg, AnoleConfig)
    assert (cfg.tokens, cfg.vocab, cfg.kv_heads, cfg.text, cfg.grid) == (1024, 8192, 2, 8900, 32)
    start, where = torch.tensor([0, 3, PREFIX - 2]), torch.arange(PREFIX + 40)
    prompt = torch.randint(8210, 8700, (ROWS, PREFIX))
    prompt[:, -2:] = torch.tensor([8710, BEGIN_OF_IMAGE])
    prompt[range(ROWS), start] = 0
    prompt[where[:PREFIX] < start[:, None]] = 1
    assert prompt[2].tolist() == [1] * (PREFIX - 2) + [0, BEGIN_OF_IMAGE]
    tokens = torch.randint(0, cfg.vocab, (ROWS, cfg.tokens))
    hidden = chameleon.model(
        torch.cat([prompt, tokens[:, :40] + FIRST_CODE], dim=1),
        attention_mask=(where >= start[:, None]).long(),
        position_ids=(where - start[:, None]).clamp(min=0),
    ).last_hidden_state
    logits = chameleon.lm_head(hidden)[..., FIRST_CODE : FIRST_CODE + cfg.vocab]
    compare(target, Image(prompt, tokens, start), lambda row: logits[row])


def test_chameleons_kin_have_to_be_named(chameleon: Any, tmp_path: Path) -> None:
    """Their tensors are alike: what was guessed would draw nonsense."""
    with pytest.raises(
        UserError, match=r"--family: expected lumina-mgpt or anole: .* alike.* give --family lumina-mgpt"
    ):
        converted(chameleon, tmp_path, 512)
    assert not (tmp_path / "ours.safetensors").exists()
    with pytest.raises(UserError, match=r"--size: expected .* anole was trained on: 512, found 768"):
        convert(tmp_path / "published", tmp_path / "ours.safetensors", "anole", ConvertOptions(768))


@torch.no_grad()
def test_janus_is_janus(janus: Any, tmp_path: Path) -> None:
    """The same by attention mask and position ids, as transformers pads; the embedding's MLP became a table."""
    target = load_target(converted(janus, tmp_path, 384, prefix=PREFIX))
    cfg = target.cfg
    assert (cfg.tokens, cfg.vocab, cfg.norm_eps, cfg.head_width) == (576, 48, 1e-6, 64)
    prompt, tokens = torch.randint(0, 120, (ROWS, PREFIX)), torch.randint(0, 48, (ROWS, cfg.tokens))
    given = Image(prompt, tokens, STARTS)
    body = janus.model.language_model
    embedded = torch.cat(
        [body.embed_tokens(prompt), janus.prepare_embeddings_for_image_generation(tokens[:, :40])], dim=1
    )
    where = torch.arange(embedded.shape[1])
    mask = (where >= STARTS[:, None]).long()
    hidden = body(
        inputs_embeds=embedded, attention_mask=mask, position_ids=(where - STARTS[:, None]).clamp(min=0)
    ).last_hidden_state
    logits = janus.model.generation_head(hidden)
    compare(target, given, lambda row: logits[row])


@torch.no_grad()
def test_janus_published_names(janus: Any, tmp_path: Path) -> None:
    """The same weights under the names of DeepSeek's own release, as one pickle: the same file comes out."""
    names = {
        "model.language_model.": "language_model.model.",
        "model.generation_embeddings.": "gen_embed.",
        "model.generation_aligner.fc1.": "gen_aligner.layers.0.",
        "model.generation_aligner.hidden_layers.0.": "gen_aligner.layers.2.",
        "model.generation_head.proj_out.": "gen_head.output_mlp_projector.",
        "model.generation_head.vision_head.": "gen_head.vision_head.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_model.": "vision_model.",
        "model.aligner.": "aligner.",
    }
    state: dict[str, Tensor] = {}
    for key, value in janus.state_dict().items():
        old = next((n for n in names if key.startswith(n)), None)
        if old is not None:
            state[names[old] + key.removeprefix(old)] = value
    torch.save(state, tmp_path / "pytorch_model.bin")
    theirs = converted(janus, tmp_path, 384, prefix=PREFIX)
    done = convert(
        tmp_path / "pytorch_model.bin", tmp_path / "own.safetensors", options=ConvertOptions(prefix=PREFIX, heads=4)
    )
    assert done.family == "janus-pro"
    for key, value in load_target(theirs).state_dict().items():
        assert torch.equal(load_target(done.path).state_dict()[key], value), key


@torch.no_grad()
def test_janus_tokenizer_is_vq16(janus: Any, tmp_path: Path) -> None:
    """transformers' Janus VQ-VAE, which is VQ-16's; and under VQGAN's order of levels, with codes as they are."""
    janus.save_pretrained(tmp_path / "published", max_shard_size="300KB")
    done = convert(tmp_path / "published", tmp_path / "vq.safetensors", family="vq")
    ours, theirs = load_tokenizer(done.path), janus.model.vqmodel
    codes = torch.randint(0, 48, (2, 4))
    wanted = theirs.decode(codes)
    assert relative(ours.decode(codes), wanted.clamp(-1, 1)) < TOLERANCE

    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("quantize.codebook")}
    turned = {k.replace("decoder.up.0.", "X.").replace("decoder.up.1.", "decoder.up.0."): v for k, v in state.items()}
    turned = {k.replace("X.", "decoder.up.1."): v for k, v in turned.items()} | {"loss.logvar": torch.zeros(1)}
    torch.save({"state_dict": turned}, tmp_path / "vqgan.ckpt")
    done = convert(tmp_path / "vqgan.ckpt", tmp_path / "vqgan.safetensors")
    gan = load_tokenizer(done.path)
    assert (done.family, gan.cfg.unit_codes) == ("vqgan", False)
    latents = theirs.quantize.embedding(codes).reshape(2, 2, 2, 8).permute(0, 3, 1, 2)
    wanted = theirs.decoder(theirs.post_quant_conv(latents)).clamp(-1, 1)
    assert relative(gan.decode(codes), wanted) < TOLERANCE


@torch.no_grad()
def test_chameleon_encoder_is_vqgan(chameleon: Any, tmp_path: Path) -> None:
    """transformers has no decoder of Chameleon's, but the encoder and the codebook: the same codes from pixels."""
    theirs = chameleon.model.vqmodel
    cfg = VQConfig(8, 4, 32, (1, 2), 4, 1, 32, low_attention=False, unit_codes=False)
    blank = VQTokenizer(cfg).state_dict()
    folder = tmp_path / "vqgan.ckpt"
    state = dict(theirs.state_dict())
    for key, value in blank.items():
        if key.startswith("decoder."):
            key = key.replace("mid.0", "mid.block_1").replace("mid.1", "mid.attn_1").replace("mid.2", "mid.block_2")
            key = key.replace("conv_blocks.0", "up.1").replace("conv_blocks.1", "up.0").replace(".res.", ".block.")
            state[key] = value
    torch.save({"state_dict": state}, folder)
    ours = load_tokenizer(convert(folder, tmp_path / "vq.safetensors").path)
    assert ours.cfg == cfg
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = theirs.quant_conv(theirs.encoder(pixels))
    assert relative(ours.latents(pixels), latents.permute(0, 2, 3, 1)) < 1e-6
    assert torch.equal(ours.encode(pixels), theirs.quantize(latents)[2].reshape(2, -1))
