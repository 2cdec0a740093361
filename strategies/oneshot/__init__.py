"""Strategies that train one supernet, and probabilities of its options, by gradients."""

from nasmw.strategies.oneshot.base import Differentiable
from nasmw.strategies.oneshot.darts import DARTS
from nasmw.strategies.oneshot.gumbel import GumbelDARTS
from nasmw.strategies.oneshot.proxyless import ProxylessNAS

__all__ = ["DARTS", "Differentiable", "GumbelDARTS", "ProxylessNAS"]
