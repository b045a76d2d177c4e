"""Both ends of every number that a user or a file can give, stated once and used at every entrance.

An end is where a larger (or smaller) number means nothing more, or where the arithmetic behind it would stop being
finite; the reason stands beside it. What depends on an engine (its image's tokens, its batch) is checked where the
engine is known, and lies inside these ends.

Pure data. Does not know who asks: the spec's models, the command line, manifests and Python callers all read it here.
"""

from __future__ import annotations

from collections.abc import Mapping

from coolsd_rt.ranges import Range, whole

# What a draft is and how long.

DRAFT_LENGTH = whole(1, 65_536)
"""Drafted tokens of a round, omegas of a schedule: more than any image has tokens."""

# The law.

OMEGA = Range(0.0, 1e6)
"""What a schedule is given: delta, beta, floor, an omega of a custom list. At the upper end a token is kept that the
target gives a millionth of what the draft gives it: more is no budget."""

LAW_OMEGA = Range(0.0, 1e12)
"""An omega of a law. A schedule with the mean delta has a first omega of up to L * delta; float32 holds far more."""

CONFIDENCE = Range(0.5, 0.999)
"""Of a one-sided bound: at a half there is no margin, beyond the other end the tails are not known well enough."""

DECAY = Range(0.0, 1e6)
"""nu of a schedule; above 800 or so every position after the first has an omega of 0, or 1 under `excess`."""

PROBABILITY = Range(0.0, 1.0)
"""A bound of lantern, a rate of synthetic, a confidence of pacing."""

FACTOR = Range(1.0, OMEGA.high)
"""Of lantern_pp: below 1 a token would lend instead of borrow."""

NEIGHBOURS = whole(1, 4096)
"""Nearest codes kept of each code. The table is codes x neighbours of 8 bytes: 512 MiB at 16,384 codes and this end."""

# From logits to a distribution.

CFG_SCALE = Range(1.0, 1e3)
"""LlamaGen guides only above 1. Logits are within 1e5 or so: at this end and the coldest temperature 1e11, finite."""

LOOP_CFG_SCALE = Range(-CFG_SCALE.high, CFG_SCALE.high)
"""What the loop itself takes: below 1 the formula has a meaning (0 leaves the prompt out), but a spec refuses it."""

TEMPERATURE = Range(1e-3, 1e3)
"""Colder, the likeliest token alone is left at any gap of logits that float32 shows; hotter, all tokens are equal."""

TOP_K = whole(0, 1 << 20)
"""Beyond any vocabulary; more than the vocabulary keeps all, as 0 does."""

TOP_P = Range(1e-6, 1.0)
"""At the lower end the likeliest token alone is left in any vocabulary of 2^20 tokens; 0 would leave none."""

CFG_INTERVAL = whole(-1, DRAFT_LENGTH.high)
"""A decode step of an image; -1 is all of them."""

# Images and batches.

SEED = whole(0, 2**64 - 1)
"""The key of the counter generator has 64 bits."""

IMAGES = whole(1, 100_000)
"""Of one request: each is a job in memory before the first is drawn."""

PARTIAL_IMAGES = whole(0, 1000)
"""Of one image of a stream, each decoded as a whole: no more than it has rows are ever shown."""

FRECHET_IMAGES = whole(3, IMAGES.high)
"""A covariance needs three."""

MAX_BATCH = whole(1, 4096)
"""Images drawn at once: their caches are reserved together."""

RUNS = whole(1, 10_000)
"""Turns of a measurement: a day's work at ten seconds each."""

# Models and what they read.

PREFIX = whole(1, 65_536)
"""Positions of a prompt."""

TOKENS_PREFIX = whole(4, PREFIX.high)
"""Of a template around a prompt: it needs a few itself."""

T5_PREFIX = whole(1, 4096)
"""Tokens of a caption. Attention in the encoder grows with its square."""

CLASSES = whole(1, 1 << 20)
"""Rows of a table of classes."""

PIXELS = whole(1, 16_384)
"""Along one side of an image: memory of its decoder grows with the square."""

LUMINA_PIXELS = whole(32, PIXELS.high)
"""Its images are told in steps of 32 pixels."""

CELL = whole(8, 16)
"""Pixels along one side of a code's cell, one of the two."""

LAYERS = whole(1, 1024)
"""Of a network."""

HEADS = whole(1, 4096)
"""Attention heads of a layer."""

WIDTH = whole(1, 65_536)
"""Of a network's vectors."""

FFN = whole(1, 1 << 20)
"""Of a network's feed-forward layers."""

CODES = whole(1, 1 << 20)
"""Rows of an embedding or of a codebook."""

TOKENS = whole(1, 65_536)
"""Of an image."""

GRID = whole(1, 256)
"""Codes along one side of an image; DRAFT_LENGTH is its square."""

# Training.

STEPS = whole(1, 100_000_000)
"""Of a training: years."""

TRAIN_BATCH = whole(1, 65_536)
"""Images of a step."""

LEARNING_RATE = Range(1e-9, 1.0)
"""Peak. A weight near 1 is not moved by less in float32, and does not survive more."""

PATIENCE = whole(1, 1_000_000)
"""Measurements without a rise."""

OWN_STEPS = whole(1, 256)
"""A head's own predictions in training: each is another pass over the batch, all kept for the gradient."""

NOISE = Range(0.0, 10.0)
"""In standard deviations: beyond, nothing of a feature is left."""

TRAIN_IMAGES = whole(1, 100_000_000)
"""Drawn by the target itself."""

TRAIN_SEED = whole(0, 2**32 - 1)
"""Steps, batches and images add their own numbers to it, and the sum has to stay a seed."""

POOL = whole(1, 65_536)
"""Tokenisations of a glyph."""

# Budgets of a tuning.

ACCEPT_LENGTH = Range(1.0, DRAFT_LENGTH.high + 1.0)
"""Tokens of a round: one is there without a draft."""

KL = Range(0.0, 1e3)
"""Nats a token; 14 is all that a vocabulary of 2^20 can have."""

TV = Range(0.0, float(DRAFT_LENGTH.high))
"""Total variation a token, a bound that adds up over positions: at most 1 each."""

# The machine.

THREADS = whole(1, 4096)
"""Of an operation; more than the usable cores are brought down to them (`coolsd_rt.cores`)."""

PROCESSES = whole(1, 65_536)
"""That train together."""

SECONDS = Range(10.0, 1e6)
"""A budget of time: nothing is done in less, and the other end is eleven days."""

# Files: bytes that are read at most, and characters of what stands in them.

MIB = 1 << 20

SPEC_BYTES = 4 * MIB
"""A spec or a sweep's file."""

PROMPTS_BYTES = 64 * MIB
"""A file of prompts."""

LINE_CHARACTERS = 100_000
"""One prompt in a file."""

PATH_CHARACTERS = 1024
"""Of the name of a file in a spec."""

PROMPT_CHARACTERS = Range(1, 10_000)
"""Longer text is no prompt, and the cleaning of captions takes quadratic time."""

RESULT_BYTES = 256 * MIB
"""A file of results that is read as a whole."""

BATCH_BYTES = 8 << 30
"""One array of a measurement that is read back."""

MANIFEST_BYTES = 16 * MIB
VOCABULARY_BYTES = 64 * MIB
LABEL_BYTES = 16 * MIB
NEIGHBOURS_BYTES = 4 << 30
TOKENIZER_BYTES = 32 * MIB
CONFIG_BYTES = MIB
INDEX_BYTES = 16 * MIB

VOCABULARY_WORDS = whole(3, MIB)
"""Of the closed vocabulary of a `words` condition."""

WORD_CHARACTERS = whole(1, 256)

SHARDS = whole(1, 1024)
"""Files that one set of weights is parted into."""

FEATURE_TOKENS = T5_PREFIX
"""Of the file of caption features, and so of `condition.length`."""

# Networks of others: text encoders, CLIP, reward models.

FOREIGN_WIDTH = whole(1, 1 << 18)
"""Of vectors and feed-forward layers."""

FOREIGN_VOCABULARY = whole(1, 1 << 22)

CONFIG_LIST = 16
"""Entries of a list in a config of ours: halvings of an image, which nobody has more than six of."""

# Our own networks, as the header of a weights file and the manifest of an engine state them. The largest published
# network is a tenth of any of these, no product of two overflows, and nothing is made of a number before it is refused.

CONFIG: Mapping[str, Range] = {
    "vocab": CODES,
    "dim": WIDTH,
    "layers": LAYERS,
    "heads": HEADS,
    "kv_heads": HEADS,
    "ffn": FFN,
    "prefix": PREFIX,
    "grid": GRID,
    "words": CODES,
    "word_dim": WIDTH,
    "classes": CLASSES,
    "text": CODES,
    "text_dim": WIDTH,
    "head": FFN,
    "norm_eps": Range(1e-30, 1.0),
    "rope_base": Range(1.0, 1e12),
    "codebook_size": CODES,
    "codebook_dim": WIDTH,
    "channels": WIDTH,
    "multipliers": whole(1, 1024),
    "z_channels": WIDTH,
    "res_blocks": whole(1, 64),
    "norm_groups": WIDTH,
}
"""Fields of the config in a weights file's header."""

DIMS: Mapping[str, Range] = {
    "vocab": CODES,
    "dim": WIDTH,
    "layers": LAYERS,
    "heads": HEADS,
    "head_dim": whole(1, 4096),
    "prefix": PREFIX,
    "tokens": TOKENS,
    "draft_layers": whole(0, LAYERS.high),
    "draft_heads": whole(0, HEADS.high),
    "draft_head_dim": whole(0, 4096),
    "draft_dim": whole(0, WIDTH.high),
    "padded": whole(0, 1),
    "condition_dim": whole(0, WIDTH.high),
}
"""Fields of `ModelDims`."""

BUILT_LENGTH = whole(1, 1024)
"""The draft length that an engine was built for."""

SIDE = PIXELS
"""Pixels along one side of an engine's images."""

CACHE_NUMBERS = whole(0, 1 << 34)
"""Numbers in the KV caches of one row, target or draft."""

TABLE_NUMBERS = whole(1, 1 << 33)
"""Numbers in one table: an embedding, a head, the prefix of a row, all distributions of a draft."""
