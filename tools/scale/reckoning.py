"""How many images a cluster draws, and which part of it is full first: arithmetic on measured and assumed figures.

Every result is linear in the rate of images, so each part has a number of GPUs at which it is full. Knows the figures'
names. Does not know where they come from, or how a page shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUSY = 0.6  # share of a process's one core, or of a link, that may be used: above, waiting times grow fast
DAY = 86400.0
FRONT_CORES = 16  # that a front may use: images are encoded in threads of its process


@dataclass(frozen=True)
class Assumed:
    """What was not measured.

    Attributes:
        images_per_second: of one GPU, with all its slots.
        gpus_per_node: GPUs, and so replicas, of a machine.
        slots: images that a replica draws at once.
        engine_gb: size of an engine folder, in GB.
        side: pixels of an image's side.
        bytes_per_pixel: of a PNG.
        gbit: of a machine's network and of the storage's, in Gbit/s.
        gpu_hours_per_failure: time of one GPU between two failures that end its replica.
        files_per_second: files that the shared file system makes durable in a second.
    """

    images_per_second: float = 1.0
    gpus_per_node: int = 8
    slots: int = 8
    engine_gb: float = 1.6
    side: int = 384
    bytes_per_pixel: float = 1.6
    gbit: float = 10.0
    gpu_hours_per_failure: float = 50_000.0
    files_per_second: float = 2000.0


@dataclass(frozen=True)
class Measured:
    """What `tools.scale.measure` found, as the reckoning needs it.

    Attributes:
        front: processor seconds of the front for an image, without those of encoding its pixels.
        proxy: the same of Serve's proxy.
        encode: seconds to encode a megapixel.
        hash_rate: bytes a second at which a replica checks its engine.
        replica_start: seconds until a replica that was killed draws again.
        replica_bytes: memory of a replica, without what the engine's files take.
        node_bytes: memory of Ray's own processes on a machine, the controller's and the proxy's included.
    """

    front: float
    proxy: float
    encode: float
    hash_rate: float
    replica_start: float
    replica_bytes: float
    node_bytes: float

    @staticmethod
    def of(costs: Mapping[str, Any]) -> Measured:
        """Take the figures of the file of `tools.scale.measure`. Raises KeyError if one is missing."""
        cpu, memory, engine = costs["cpu_image"]["ray"], costs["memory"]["ray"], costs["engine"]
        encode = costs["encode_seconds_megapixel"]
        own = encode * engine["side"] ** 2 / 1e6  # of the front's time for the images that were measured
        return Measured(
            front=max(0.0, cpu["front"] - own),
            proxy=cpu["proxy"],
            encode=encode,
            hash_rate=costs["hash_bytes_per_second"],
            replica_start=costs["seconds_replica"],
            replica_bytes=max(0.0, memory["replica"] - engine["bytes"]),
            node_bytes=memory["ray"] + memory["controller"] + memory["proxy"],
        )


@dataclass(frozen=True)
class Reckoned:
    """What a number of GPUs amounts to."""

    gpus: int
    nodes: int
    images_per_second: float
    images_per_day: float
    front_cores: float
    answers_gbit: float
    store_once_seconds: float
    copied_on_seconds: float
    verify_seconds: float
    node_memory_gb: float
    failures_per_day: float
    images_again_per_day: float
    lost_share: float


def megapixels(assumed: Assumed) -> float:
    """Return the megapixels of an image."""
    return assumed.side**2 / 1e6


def answer_bytes(assumed: Assumed) -> float:
    """Return the bytes of an answer with one image: base64 of a PNG."""
    return assumed.side**2 * assumed.bytes_per_pixel * 4 / 3


def front_seconds(measured: Measured, assumed: Assumed) -> float:
    """Return the processor seconds of the front for an image."""
    return measured.front + measured.encode * megapixels(assumed)


def reckon(gpus: int, measured: Measured, assumed: Assumed) -> Reckoned:
    """Return what a number of GPUs amounts to."""
    rate, nodes = gpus * assumed.images_per_second, math.ceil(gpus / assumed.gpus_per_node)
    size, link = assumed.engine_gb * 1e9, assumed.gbit * 1e9 / 8
    verify = size / measured.hash_rate
    failures = gpus * 24 / assumed.gpu_hours_per_failure
    start = measured.replica_start + verify
    return Reckoned(
        gpus=gpus,
        nodes=nodes,
        images_per_second=rate,
        images_per_day=rate * DAY,
        front_cores=rate * front_seconds(measured, assumed) / BUSY,
        answers_gbit=rate * answer_bytes(assumed) * 8 / 1e9,
        store_once_seconds=nodes * size / link,
        copied_on_seconds=math.ceil(math.log2(nodes + 1)) * size / link,
        verify_seconds=verify,
        node_memory_gb=(measured.node_bytes + assumed.gpus_per_node * measured.replica_bytes + size) / 1e9,
        failures_per_day=failures,
        images_again_per_day=failures * assumed.slots,
        lost_share=failures * start / (gpus * DAY),
    )


def full_at(measured: Measured, assumed: Assumed) -> dict[str, float]:
    """Return the number of GPUs at which each part is full, the first one first."""
    each, link = assumed.images_per_second, assumed.gbit * 1e9 / 8
    rates = {
        "the one front: its event loop": BUSY / measured.front if measured.front else math.inf,
        f"the one front: encoding, on {FRONT_CORES} cores": FRONT_CORES * BUSY / front_seconds(measured, assumed),
        "one of Serve's proxies": BUSY / measured.proxy if measured.proxy else math.inf,
        "the front's network": BUSY * link / answer_bytes(assumed),
        "a long job's file system, durable files (PNG)": BUSY * assumed.files_per_second,
        "a long job's file system, bytes": BUSY * link / (answer_bytes(assumed) * 3 / 4),
    }
    return dict(sorted(((name, rate / each) for name, rate in rates.items()), key=lambda pair: pair[1]))
