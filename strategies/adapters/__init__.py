"""Strategies of other libraries under any chain, and a chain as a sampler; the libraries are imported at use."""

from __future__ import annotations

from nasmw.strategies.adapters.chain_sampler import ChainSampler, suggest
from nasmw.strategies.adapters.nevergrad import NevergradStrategy
from nasmw.strategies.adapters.optuna import OptunaStrategy
from nasmw.strategies.adapters.pymoo import PymooStrategy

__all__ = ["ChainSampler", "NevergradStrategy", "OptunaStrategy", "PymooStrategy", "suggest"]
