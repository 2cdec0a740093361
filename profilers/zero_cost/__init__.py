"""Zero-cost proxies: scores of networks before any training, from one mini-batch and random weights."""

from nasmw.profilers.zero_cost.base import ZeroCostProfiler
from nasmw.profilers.zero_cost.ensemble import RankEnsembleProfiler, proxy_encoding
from nasmw.profilers.zero_cost.gradients import GradNormProfiler, SnipProfiler, SynflowProfiler
from nasmw.profilers.zero_cost.kernels import JacovProfiler, NaswotProfiler
from nasmw.profilers.zero_cost.zen import ZenProfiler

__all__ = [
    "GradNormProfiler",
    "JacovProfiler",
    "NaswotProfiler",
    "RankEnsembleProfiler",
    "SnipProfiler",
    "SynflowProfiler",
    "ZenProfiler",
    "ZeroCostProfiler",
    "proxy_encoding",
]
