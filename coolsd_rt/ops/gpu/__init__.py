"""The operations of the loop on a GPU: torch operators over Triton kernels, one launch each, no waiting.

    process_logits   logits -> P or Q
    draft_sample     logits -> Q and the drafted tokens
    sample           weights -> tokens
    verify           P, Q, the drafts -> how many are kept and the token that ends the round

and of what lies around them in a round that never leaves the device, written in place

    window           counters, tokens, random numbers -> what a round may use and where its steps stand
    draft_token      logits -> one draft of each picture and its Q, wherever they are read
    commit           what verify says -> tokens, counters, statistics

The eager reference in `coolsd_rt.ops` says what they mean; on a CPU they are it. Importing this needs torch; the first
launch on a GPU needs triton too. `offline` compiles the kernels without a GPU, `plugin` puts them into TensorRT.
"""

from coolsd_rt.device.round_ops import commit, draft_token, window
from coolsd_rt.ops.gpu.faults import FAULT_DRAFT, FAULT_TOTAL, FAULT_WINDOW, raise_fault
from coolsd_rt.ops.gpu.ops import RESAMPLERS, draft_sample, process_logits, sample, verify

__all__ = [
    "FAULT_DRAFT",
    "FAULT_TOTAL",
    "FAULT_WINDOW",
    "RESAMPLERS",
    "commit",
    "draft_sample",
    "draft_token",
    "process_logits",
    "raise_fault",
    "sample",
    "verify",
    "window",
]
