"""The mathematics of relaxed speculative decoding: schedules, acceptance, residuals and exact enumeration.

Knows arrays and probabilities; all functions are pure. Does not know models, engines, files or specs.
"""

from coolsd_rt.law.acceptance import acceptance, accepts, overlap
from coolsd_rt.law.residual import DEGENERATE_MASS, DEVICE_RESAMPLERS, RESAMPLERS, Resampler, residual
from coolsd_rt.law.rules import RULES, Law, Rule
from coolsd_rt.law.schedule import SCHEDULES, Schedule, make_omegas
from coolsd_rt.law.tolerance import Tolerance, columns_read, nearest_codes

__all__ = [
    "DEGENERATE_MASS",
    "DEVICE_RESAMPLERS",
    "RESAMPLERS",
    "RULES",
    "SCHEDULES",
    "Law",
    "Resampler",
    "Rule",
    "Schedule",
    "Tolerance",
    "acceptance",
    "accepts",
    "columns_read",
    "make_omegas",
    "nearest_codes",
    "overlap",
    "residual",
]
