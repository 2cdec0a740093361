"""Encodings learnt from a space's architectures alone: `GraphPCA`, and what Arch2Vec and Cate have in common."""

from __future__ import annotations

import contextlib
import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Encoding
from nasmw.profilers.learned.graphs import Adjacency
from nasmw.space import Space

__all__ = ["GraphPCA", "TrainedEncoding", "seeded"]

BLOCK = 1024


@attrs.frozen(eq=False)
class _Plan:
    """What was learnt, and the mean and the common size of its columns."""

    learnt: Any
    centre: Floats
    size: float


class TrainedEncoding(Encoding):
    """An encoding whose columns are learnt from random architectures of a space, without any value of theirs.

    It is trained at the first use in a space and kept for as long as the space lives. Columns have the mean 0 over the
    architectures that it is learnt from, and the same scale: their variances have the mean 1. The same arguments give
    the same numbers on one machine; another one may differ in the last digits, and files of profilers refuse to load
    then.

    Args:
        options: Words such as ``"dim16"`` (columns, 32 by default) and ``"seed3"`` (from which everything is drawn, 0
            by default).

    Raises:
        ProfilerError: If a word is none of these.
    """

    text: ClassVar[str]
    samples: ClassVar[int] = 4096
    """How many architectures it is learnt from."""

    def __init__(self, *options: str) -> None:
        found = {"dim": 32, "seed": 0}
        for option in options:
            match = re.fullmatch(r"(dim|seed)(\d+)", option)
            if match is None or (match[1] == "dim" and not int(match[2])):
                raise ProfilerError(f"{self.text!r} takes words such as 'dim16' and 'seed3', got {option!r}")
            found[match[1]] = int(match[2])
        self.dimension = found["dim"]
        self.seed = found["seed"]

    def __str__(self) -> str:
        words = [f"dim{self.dimension}"] if self.dimension != 32 else []
        words += [f"seed{self.seed}"] if self.seed else []
        return f"{self.text}({', '.join(words)})" if words else self.text

    @abstractmethod
    def _learnt(self, space: Space, sample: Candidates) -> Any:
        """Return what is learnt from architectures of a space."""

    @abstractmethod
    def _columns(self, learnt: Any, candidates: Candidates) -> Floats:
        """Return ``(n, p)``, the columns as they were learnt."""

    def _prepare(self, space: Space) -> _Plan:
        sample = space.sample(self.samples, np.random.default_rng([self.seed, 2]))
        learnt = self._learnt(space, sample)
        values = self._columns(learnt, sample)
        size = float(np.sqrt(values.var(axis=0).mean()))
        return _Plan(learnt, values.mean(axis=0), size if size > 0.0 else 1.0)

    def _encode(self, plan: _Plan, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        found = [np.zeros((0, len(plan.centre)))]
        for start in range(0, len(candidates), BLOCK):
            found.append(self._columns(plan.learnt, candidates[start : start + BLOCK]))
        return (np.concatenate(found) - plan.centre) / plan.size

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns, which are their numbers."""
        return tuple(f"{self.text} {number}" for number in range(len(self.plan(space).centre)))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed inside, and leave torch's own state as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class GraphPCA(TrainedEncoding):
    """The first principal components of the graph: of `Adjacency`, whose columns are ones and zeros.

    The baseline of learnt encodings: linear, and done in no time.

    Args:
        options: As for `TrainedEncoding`; no seed is needed, but it draws other architectures.

    Raises:
        ProfilerError: If a word is unknown; at use, if all graphs of the space are alike.

    Example:
        >>> from nasmw.testing import toy_space
        >>> space = toy_space()
        >>> GraphPCA("dim4").encode(space.sample(10, np.random.default_rng(0))).values.shape
        (10, 4)
    """

    text = "graph_pca"

    def _learnt(self, space: Space, sample: Candidates) -> npt.NDArray[np.float64]:
        values = Adjacency().encode(sample).values
        if not values.shape[1]:
            raise ProfilerError(f"there is nothing that {self.text!r} could learn: all graphs of {space!r} are alike")
        centred = values - values.mean(axis=0)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        axes = vectors[:, ::-1][:, : self.dimension]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        return np.asarray(axes * np.where(largest < 0, -1.0, 1.0))

    def _columns(self, learnt: npt.NDArray[np.float64], candidates: Candidates) -> Floats:
        return np.asarray(Adjacency().encode(candidates).values @ learnt)
