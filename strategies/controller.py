"""Controller: a recurrent network that decides on one choice after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nasmw.candidates import Codes, Floats

__all__ = ["Controller", "Course", "one_thread"]

SCALE = 0.1
State = tuple[Tensor, Tensor]


@attrs.frozen(eq=False)
class Course:
    """How an architecture was decided on, one entry for each decision.

    Attributes:
        codes: ``(1, d)`` the architecture.
        tokens: The option that was taken; options of all choices are numbered one after the other.
        open: The options that were to be had.
        log_probability: The logarithm of the probability that all of them are taken, when they were taken.
    """

    codes: Codes
    tokens: tuple[int, ...]
    open: tuple[tuple[int, ...], ...]
    log_probability: float


class Controller:
    """An LSTM cell that reads the option taken last and scores the options of the next choice; float64, on the CPU.

    Args:
        total: The number of options of all choices together.
        hidden: The size of embeddings and states.
        rng: The generator that weights are drawn from, uniform between -0.1 and 0.1; biases are 0.

    Attributes:
        parameters: The weights and biases.
    """

    def __init__(self, total: int, hidden: int, rng: np.random.Generator) -> None:
        def drawn(*shape: int) -> Tensor:
            return torch.from_numpy(rng.uniform(-SCALE, SCALE, shape)).requires_grad_()

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, requires_grad=True)

        self._total = total
        self._hidden = hidden
        self._embedding = drawn(total + 1, hidden)  # the last one stands for the start
        self._cell = [
            drawn(4 * hidden, hidden),
            drawn(4 * hidden, hidden),
            zeros(4 * hidden),
            zeros(4 * hidden),
        ]
        self._head = [drawn(total, hidden), zeros(total)]
        self.parameters = [self._embedding, *self._cell, *self._head]

    def start(self, n: int = 1) -> tuple[State, Tensor]:
        """Return the state and the tokens, ``(n,)``, before the first decision."""
        zeros = torch.zeros((n, self._hidden), dtype=torch.float64)
        return (zeros, zeros), torch.full((n,), self._total)

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        """Return the next state, and the scores of all options, ``(n, total)``."""
        state = torch.lstm_cell(F.embedding(tokens, self._embedding), state, *self._cell)
        return state, F.linear(state[0], *self._head)

    def decide(self, state: State, token: int, options: Sequence[int]) -> tuple[State, Floats]:
        """Return the next state, and the probabilities of the options that are to be had."""
        with torch.no_grad():
            state, scores = self.step(state, torch.tensor([token]))
            return state, torch.softmax(scores[0, list(options)], dim=0).numpy()

    def read(self, courses: Sequence[Course]) -> tuple[Tensor, Tensor]:
        """Return the log probability of each course, and the sum of the entropies of its decisions, ``(n,)`` both."""
        n = len(courses)
        probability, entropy = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        state, tokens = self.start(n)
        for step in range(max(len(course.tokens) for course in courses)):
            state, scores = self.step(state, tokens)
            rows = [row for row, course in enumerate(courses) if step < len(course.tokens)]
            closed = torch.ones((len(rows), self._total), dtype=torch.bool)
            for place, row in enumerate(rows):
                closed[place, list(courses[row].open[step])] = False
            taken = torch.tensor([courses[row].tokens[step] for row in rows])
            index = torch.tensor(rows)
            log = torch.log_softmax(scores[index].masked_fill(closed, -torch.inf), dim=1)
            spread = -(log.exp() * log.masked_fill(closed, 0.0)).sum(dim=1)
            probability = probability.index_add(0, index, log.gather(1, taken[:, None])[:, 0])
            entropy = entropy.index_add(0, index, spread)
            tokens = tokens.index_copy(0, index, taken)
        return probability, entropy


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, so that sums do not depend on how many there are; restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
