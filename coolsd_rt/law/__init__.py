"""A probability: schedules, acceptance, residuals, exact enumeration.

Pure functions of arrays. Knows no models, no engines, no files, no specs.
"""

from coolsd_rt.law.acceptance import acceptance, accepts, overlap
from coolsd_rt.law.residual import DEGENERATE_MASS, RESAMPLERS, Resampler, residual
from coolsd_rt.law.schedule import SCHEDULES, Law, Rule, Schedule, make_omegas

__all__ = [
    "DEGENERATE_MASS",
    "RESAMPLERS",
    "SCHEDULES",
    "Law",
    "Resampler",
    "Rule",
    "Schedule",
    "acceptance",
    "accepts",
    "make_omegas",
    "overlap",
    "residual",
]
