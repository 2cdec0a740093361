"""Distribution: independent probabilities of the options of each choice, which are learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasmw.candidates import Floats
from nasmw.cost import CostTable
from nasmw.space import Space

__all__ = ["Distribution", "surprise"]


class Distribution:
    """A score for each option of each choice; probabilities are their softmax, independent of each other.

    Args:
        space: The space.
        rng: What the first scores are drawn from: normal, with a standard deviation of 0.001.
        device: Where scores are.

    Attributes:
        scores: The scores by choice, each ``(options,)``; leaves of the graph.
    """

    def __init__(self, space: Space, rng: np.random.Generator, device: torch.device) -> None:
        self._space = space
        self.scores: dict[str, Tensor] = {
            choice.name: torch.tensor(
                1e-3 * rng.standard_normal(len(choice.options)), dtype=torch.float32, device=device, requires_grad=True
            )
            for choice in space.choices
        }

    def probabilities(self) -> dict[str, Tensor]:
        """Return the probabilities of each choice's options, ``(options,)``; differentiable."""
        return {name: torch.softmax(score, dim=0) for name, score in self.scores.items()}

    def numbers(self) -> dict[str, Floats]:
        """Return the logarithms of the probabilities, in float64."""
        return {
            name: torch.log_softmax(score.detach().double(), dim=0).cpu().numpy() for name, score in self.scores.items()
        }

    def drawn(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return an architecture."""
        codes = [int(rng.choice(len(log), p=np.exp(log) / np.exp(log).sum())) for log in self.numbers().values()]
        return self._decoded(codes)

    def likeliest(self) -> dict[str, Any]:
        """Return the architecture of the likeliest option of each choice."""
        return self._decoded([int(score.detach().argmax()) for score in self.scores.values()])

    def _decoded(self, codes: list[int]) -> dict[str, Any]:
        row = self._space.canonical(np.array([codes], dtype=self._space.dtype))[0]
        return self._space.decode(row)

    def entropy(self) -> float:
        """Return the mean entropy of the choices, each as a share of the greatest that it can have."""
        shares = [
            float(-(np.exp(log) * log).sum() / np.log(len(log))) for log in self.numbers().values() if len(log) > 1
        ]
        return float(np.mean(shares)) if shares else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the scores."""
        return {name: score.detach().cpu().clone() for name, score in self.scores.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take scores back."""
        with torch.no_grad():
            for name, score in self.scores.items():
                score.copy_(state[name])


def surprise(space: Space, logarithms: Mapping[str, Floats]) -> CostTable:
    """Return how much less likely an architecture is than the likeliest one, as a table.

    An architecture is as likely as the likeliest draw of all choices that gives it: choices that are inactive in it
    have their likeliest option. So the likeliest architecture has the likeliest option of every choice, and deep
    networks are not less likely than shallow ones for having more choices.

    Args:
        space: The space.
        logarithms: For each choice, the logarithms of its options' probabilities.

    Returns:
        The difference of the logarithms, at least 0.
    """
    terms = []
    for column, choice in enumerate(space.choices):
        scope = _gating(space, column)
        shape = [len(choice.options) if c == column else 1 for c in scope]
        missing = (logarithms[choice.name].max() - logarithms[choice.name]).reshape(shape)
        sizes = [len(space.choices[c].options) for c in scope]
        entries = np.broadcast_to(np.where(_active(space, column, scope), missing, 0.0), sizes)
        terms.append(([space.choices[c].name for c in scope], entries))
    return CostTable(space, terms, name="surprise")


def _gating(space: Space, column: int) -> list[int]:
    """Return the columns that decide whether a choice is active, and itself last, in ascending order."""
    found = {column}
    ahead = [column]
    while ahead:
        for gate in space.gates[ahead.pop()]:
            if gate not in found:
                found.add(gate)
                ahead.append(gate)
    return sorted(found)


def _active(space: Space, column: int, scope: list[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return for all codes of a scope whether a choice is active, with one axis for each choice of the scope."""
    result = np.ones([1] * len(scope), dtype=np.bool_)
    for gate, allowed in space.gates[column].items():
        shape = [1] * len(scope)
        options = len(space.choices[gate].options)
        shape[scope.index(gate)] = options
        meets = np.isin(np.arange(options), list(allowed)).reshape(shape)
        result = result & meets & _active(space, gate, scope)
    return result
