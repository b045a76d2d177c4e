"""The decoding loop: the round, KV state, randomness, batch rows, statistics. Does not know the backend."""

from coolsd_rt.runtime.interface import Engine, ProposingSession, Session
from coolsd_rt.runtime.progress import OnProgress, Progress
from coolsd_rt.runtime.randomness import uniform_table
from coolsd_rt.runtime.round import LoopHooks, decode, generate
from coolsd_rt.runtime.sampling import Sampling
from coolsd_rt.runtime.state import RoundRecord, State, capacity
from coolsd_rt.runtime.statistics import Generation, Statistics

__all__ = [
    "Engine",
    "Generation",
    "LoopHooks",
    "OnProgress",
    "Progress",
    "ProposingSession",
    "RoundRecord",
    "Sampling",
    "Session",
    "State",
    "Statistics",
    "capacity",
    "decode",
    "generate",
    "uniform_table",
]
