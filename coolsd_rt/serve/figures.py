"""The figures of an image or a text, as answers have them.

Knows what the slot loop counts. Does not know requests.
"""

from __future__ import annotations

from typing import Any

from coolsd_rt.workflows.drawing import Job, Settings
from coolsd_rt.workflows.slots import DrawnImage


def figures_of(job: Job, settings: Settings, drawn: DrawnImage) -> dict[str, Any]:
    """Return JSON data: seed, tokens, rounds and seconds."""
    rounds, tokens = len(drawn.accepted), len(drawn.codes)
    return {
        "seed": job.seed,
        "tokens": tokens,
        "rounds": rounds,
        "mean_acceptance_length": 1 + sum(drawn.accepted) / rounds if rounds else None,
        "accepted": [int(count) for count in drawn.accepted],
        "num_drafts": [int(count) for count in drawn.num_drafts],
        "distance_per_token": None if drawn.distance is None else drawn.distance / (rounds + sum(drawn.accepted)),
        "plan": {
            "draft": None if settings.plain else settings.drafter,
            "draft_length": settings.law.length,
            "plain_from": drawn.plain_from,
        },
        "seconds_queue": drawn.seconds_waiting,
        "seconds": drawn.seconds,
        "tokens_per_second": tokens / drawn.seconds if drawn.seconds else None,
    }
