"""The operations of the loop on a GPU: torch operators over Triton kernels, one launch each, without synchronisation.

    process_logits   logits -> P or Q
    draft_sample     logits -> Q and the drafted tokens
    sample           weights -> tokens
    verify           P, Q, the drafts -> number of accepted drafts and the token that ends the round

The eager reference in `coolsd_rt.ops` defines their results; on a CPU the operators call it. Importing this package
needs torch; the first launch on a GPU needs triton too.
"""

from coolsd_rt.ops.gpu.faults import FAULT_DRAFT, FAULT_TOTAL, FAULT_WINDOW, raise_fault
from coolsd_rt.ops.gpu.ops import draft_sample, process_logits, sample, verify

__all__ = [
    "FAULT_DRAFT",
    "FAULT_TOTAL",
    "FAULT_WINDOW",
    "draft_sample",
    "process_logits",
    "raise_fault",
    "sample",
    "verify",
]
