"""The range of every number that a user or a file can give, stated once and used at every entry point.

An end of a range is where larger (or smaller) numbers have no further effect, or where the arithmetic would overflow;
the reason is given beside it. Limits that depend on an engine (image tokens, batch size) are checked where the engine
is known, and lie within these ranges.

Pure data. Knows numbers. Does not know who uses them: the spec's models, the command line, manifests and Python callers
do.
"""

from __future__ import annotations

from collections.abc import Mapping

from coolsd_rt.ranges import Range, whole

# The draft.

DRAFT_LENGTH = whole(1, 65_536)
"""Drafted tokens per round, which is also the number of a schedule's omegas: more than any image has tokens."""

TREE_WIDTH = whole(1, 1024)
"""Siblings below one node of a tree of drafts: each is a position of the target's step."""

TREE_NODES = whole(1, 1024)
"""Nodes of a tree of drafts. A step sees every pair of them, and all are in the caches at once."""

NGRAM = whole(1, 64)
"""Tokens that are looked up. Each size has an entry for every token; hardly any text repeats more by chance."""

# The law.

OMEGA = Range(0.0, 1e6)
"""Values of a schedule: delta, beta, floor, an omega of a custom list. At the upper end a token is accepted although
the target gives it a millionth of the draft's probability; more is not a meaningful budget."""

LAW_OMEGA = Range(0.0, 1e12)
"""An omega of a law. A schedule with mean delta has a first omega of up to L * delta, far below float32's maximum."""

CONFIDENCE = Range(0.5, 0.999)
"""Confidence of a one-sided bound. At 0.5 the margin is 0; above the upper end the tails are not known well enough."""

DECAY = Range(0.0, 1e6)
"""nu of a schedule. Above about 800 every omega after the first is 0, or 1 for `excess`."""

PROBABILITY = Range(0.0, 1.0)
"""The bound of lantern, a rate of synthetic, a confidence of pacing."""

FACTOR = Range(1.0, OMEGA.high)
"""The factor of lantern_pp. Below 1 a token would lend instead of borrow."""

NEIGHBOURS = whole(1, 4096)
"""Nearest codes stored per code. The table has 8 bytes per entry: 512 MiB at 16,384 codes and the upper end."""

# From logits to a distribution.

CFG_SCALE = Range(1.0, 1e3)
"""LlamaGen guides only above 1. Logits are below about 1e5, so this end with the lowest temperature gives 1e11."""

LOOP_CFG_SCALE = Range(-CFG_SCALE.high, CFG_SCALE.high)
"""The loop's range. Below 1 the formula is still defined (0 ignores the prompt), but a spec refuses it."""

TEMPERATURE = Range(0.0, 1e3)
"""0 is greedy: only the most probable token is left, as for any value up to 1e-5. Above the upper end all tokens are
equal."""

TOP_K = whole(0, 1 << 20)
"""More than any vocabulary; values above the vocabulary size keep all tokens, as 0 does."""

TOP_P = Range(1e-6, 1.0)
"""At the lower end only the most probable of 2^20 tokens is left; 0 would leave none."""

CFG_INTERVAL = whole(-1, DRAFT_LENGTH.high)
"""A decode step of an image; -1 means all steps."""

# Images and batches.

SEED = whole(0, 2**64 - 1)
"""The key of the counter-based generator has 64 bits."""

IMAGES = whole(1, 100_000)
"""Images per request; each is a job in memory before the first is drawn."""

PARTIAL_IMAGES = whole(0, 1000)
"""Partial images per image of a stream. At most one is shown per row of codes, and each decodes the whole image."""

FRECHET_IMAGES = whole(3, IMAGES.high)
"""Images of a Fréchet distance, at least three for a covariance."""

MAX_BATCH = whole(1, 4096)
"""Images per batch; their caches are allocated together."""

RUNS = whole(1, 10_000)
"""Repetitions of a measurement: a day at ten seconds each."""

# The server: numbers of a request over HTTP, and of its options.
SERVED_IMAGES = whole(1, 10)  # images per request, as in OpenAI's API; texts per prompt
SERVED_PROMPTS = whole(1, 64)  # of a request for texts; each waits for a slot of its own
STOP_STRINGS = whole(1, 4)  # as in OpenAI's API
STOP_CHARACTERS = whole(1, 1024)  # of a stop string; as many of the text may be held back
CHAT_MESSAGES = whole(1, 10_000)  # of a chat: more than the largest body holds
SERVED_PARTIAL_IMAGES = whole(0, 16)  # per image; each takes the engine from all other images for a moment
COMPRESSION = whole(0, 100)  # quality of a JPEG or WebP image, as in OpenAI's API
QUEUE = whole(0, 10_000)  # images or texts that may wait for a slot: the last of more would wait for hours
PORT = whole(0, 65_535)  # 0 lets the operating system choose
REQUEST_SECONDS = Range(1e-3, 86_400.0)  # deadline of a request; the upper end is a day

# Models and their inputs.

PREFIX = whole(1, 65_536)
"""Positions of a prompt."""

TEXT_CHARACTERS = whole(0, 1 << 20)
"""Characters of a text to continue, or of a message: more than any prefix has tokens for."""

TEMPLATE_BYTES = 1 << 20
"""Size of a chat template; published ones have some kilobytes."""

TEXT_TOKENS = whole(1, DRAFT_LENGTH.high)
"""Tokens of a text behind its prompt. The table of random numbers has a row for each."""

TEXT_NEIGHBOURS = whole(0, 4096)
"""Nearest tokens stored per token. As `NEIGHBOURS`, and none."""

TOKENS_PREFIX = whole(4, PREFIX.high)
"""Positions of a prompt in a template, which needs a few itself."""

T5_PREFIX = whole(1, 4096)
"""Tokens of a caption. The encoder's attention grows with the square."""

CLASSES = whole(1, 1 << 20)
"""Rows of the class embedding."""

PIXELS = whole(1, 16_384)
"""Pixels along one side of an image. The decoder's memory grows with the square."""

LUMINA_PIXELS = whole(32, PIXELS.high)
"""Pixels along one side of Lumina-mGPT's images, in steps of 32."""

CELL = whole(8, 16)
"""Pixels along one side of a code's cell: 8 or 16."""

LAYERS = whole(1, 1024)  # layers of a network
HEADS = whole(1, 4096)  # attention heads per layer
WIDTH = whole(1, 65_536)  # width of a network's hidden vectors
FFN = whole(1, 1 << 20)  # width of a network's feed-forward layers
CODES = whole(1, 1 << 20)  # rows of an embedding or of a codebook
TOKENS = whole(1, 65_536)  # image tokens of an image

GRID = whole(1, 256)
"""Codes along one side of an image; DRAFT_LENGTH is its square."""

# Training.

STEPS = whole(1, 100_000_000)
"""Training steps; the upper end takes years."""

TRAIN_BATCH = whole(1, 65_536)
"""Images per training step."""

LEARNING_RATE = Range(1e-9, 1.0)
"""Peak learning rate. Less does not change a float32 weight near 1, and more diverges."""

PATIENCE = whole(1, 1_000_000)
"""Measurements without improvement before training stops."""

REFINEMENTS = whole(0, 64)
"""Passes that judge the drafts of a round, of the rule per_position. As many as drafts are lossless."""

OWN_STEPS = whole(1, 256)
"""Steps of a head's own predictions in training. Each is another pass over the batch, kept for the gradient."""

NOISE = Range(0.0, 10.0)
"""Feature noise in standard deviations. More would hide the features completely."""

TV_WEIGHT = Range(0.0, 1000.0)
"""Weight of TV(P, Q) in a draft's loss. With more, nothing of the cross-entropy is left."""

TRAIN_IMAGES = whole(1, 100_000_000)
"""Training images drawn by the target."""

TRAIN_SEED = whole(0, 2**32 - 1)
"""Seed of a training. Numbers of steps, batches and images are added to it, and the sum must be a valid seed."""

POOL = whole(1, 65_536)
"""Tokenisations per glyph."""

# Budgets for tuning.

ACCEPT_LENGTH = Range(1.0, DRAFT_LENGTH.high + 1.0)
"""Tokens per round; 1 without drafts."""

KL = Range(0.0, 1e3)
"""Nats per token; a vocabulary of 2^20 has at most 14."""

TV = Range(0.0, float(DRAFT_LENGTH.high))
"""Total variation per token, a bound summed over positions with at most 1 each."""

# The machine.

THREADS = whole(1, 4096)
"""Threads per operation; reduced to the usable cores (`coolsd_rt.cores`)."""

PROCESSES = whole(1, 65_536)
"""Processes of one training, or of one engine on a cluster."""

SECONDS = Range(10.0, 1e6)
"""A time budget. Less is too short for any work; the upper end is eleven days."""

# Files: the most bytes that are read, and the most characters of their entries.

MIB = 1 << 20

SPEC_BYTES = 4 * MIB  # size of a spec or a sweep's file
PROMPTS_BYTES = 64 * MIB  # size of a prompt file

ROW_BYTES = 1 * MIB
"""A line of a prompts file with settings: as many as the longest prompt has in any script, and as many again."""

PART_ROWS = whole(1, 10_000)
"""Rows of a part of a long job: the most that a folder holds well, and that is lost time when a node dies."""

RAY_WORKERS = whole(1, 10_000)
"""Engines on a Ray cluster: more than the largest has GPUs."""

JOB_SHARDS = whole(1, 100_000)
"""Processes that share a long job."""

LINE_CHARACTERS = 100_000  # of one line in a prompt file
PATH_CHARACTERS = 1024  # of a file name in a spec

PROMPT_CHARACTERS = Range(1, 10_000)
"""Characters of a prompt. The cleaning of captions takes quadratic time."""

RESULT_BYTES = 256 * MIB
"""Size of a result file that is read as a whole."""

BATCH_BYTES = 8 << 30
"""Size of one array of a measurement that is read back."""

MANIFEST_BYTES = 16 * MIB
VOCABULARY_BYTES = 64 * MIB
LABEL_BYTES = 16 * MIB
TOKENIZER_BYTES = 32 * MIB
CONFIG_BYTES = MIB
INDEX_BYTES = 16 * MIB

VOCABULARY_WORDS = whole(3, MIB)
"""Words in the vocabulary of a `words` condition."""

WORD_CHARACTERS = whole(1, 256)

SHARDS = whole(1, 1024)
"""Shards of one set of weights."""

FEATURE_TOKENS = T5_PREFIX
"""Tokens of a caption in a feature file, and so `condition.length`."""

# Third-party networks: text encoders, CLIP, reward models.

FOREIGN_WIDTH = whole(1, 1 << 18)
"""Width of hidden vectors and feed-forward layers."""

FOREIGN_VOCABULARY = whole(1, 1 << 22)

CONFIG_LIST = 16
"""Entries of a list in a config: halvings of the image's resolution, of which published networks have at most six."""

# Networks of this package, as in the header of a weights file and the manifest of an engine. The largest published
# network is a tenth of each limit, no product of two overflows, and a number is checked before anything is allocated.

CONFIG: Mapping[str, Range] = {
    "vocab": CODES,
    "draft_vocab": CODES,
    "dim": WIDTH,
    "layers": LAYERS,
    "heads": HEADS,
    "kv_heads": HEADS,
    "ffn": FFN,
    "prefix": PREFIX,
    "length": TOKENS,
    "context": whole(1, 1 << 24),
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
"""Ranges of the config fields in a weights file's header."""

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
    **dict.fromkeys(("padded", "cut"), whole(0, 1)),
    **dict.fromkeys(("draft_dim", "condition_dim"), whole(0, WIDTH.high)),
    **dict.fromkeys(("row", "ahead"), whole(0, TOKENS.high)),
}
"""Ranges of the fields of `ModelDims`."""

BUILT_LENGTH = whole(1, 1024)
"""Draft length that an engine was built for."""

SIDE = whole(0, PIXELS.high)
"""Pixels along one side of an engine's images; 0 if it writes text."""

CACHE_NUMBERS = whole(0, 1 << 34)
"""Numbers in the KV caches of one row, target or draft."""

TABLE_NUMBERS = whole(1, 1 << 33)
"""Numbers in one table: an embedding, an output head, the prefix of a row, all distributions of a draft."""
