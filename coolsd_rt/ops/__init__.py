"""The tensor operations of the loop: logit processing, sampling, verification. One eager reference over the array API.

The same code runs on NumPy and on torch. Knows arrays and the law. Does not know models, files or engines. Every
uniform is an argument. Computes in float32 by default; float64 inputs give float64 outputs, so that tests can enumerate
exactly.
"""

from coolsd_rt.ops.logits import process_logits
from coolsd_rt.ops.sample import race, sample
from coolsd_rt.ops.verify import Verdict, verify

__all__ = ["Verdict", "process_logits", "race", "sample", "verify"]
