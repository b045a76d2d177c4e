"""The tensor operations of the loop: logit processing, sampling, verification. One eager reference over the array API.

The same lines run on NumPy and on torch. Knows arrays and the law; no models, no files, no engines. Every uniform is
passed in. float32 by default; float64 in, float64 out, so that tests can enumerate exactly.
"""

from coolsd_rt.ops.logits import process_logits
from coolsd_rt.ops.sample import sample
from coolsd_rt.ops.verify import Verdict, verify

__all__ = ["Verdict", "process_logits", "sample", "verify"]
