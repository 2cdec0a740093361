"""PolicyGradient: a recurrent network learns by reinforcement which options to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nasmw.candidates import Candidates, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.feasible import FeasibleSet, by_construction
from nasmw.strategies.arguments import one_objective, positive, share, whole
from nasmw.strategy import Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from nasmw.strategies.controller import Course

__all__ = ["PolicyGradient"]


class PolicyGradient(Strategy):
    """REINFORCE: a recurrent controller emits one option after the other, and learns which ones score above average.

    Every candidate is drawn from the controller, an LSTM that reads the option taken last and gives probabilities to
    those of the next choice; choices that are inactive, or have one option left, are skipped. After every `batch`
    scores the controller takes one step of Adam up the gradient of the expected score. Architectures may be asked for
    twice; it is never exhausted.

    Limits on profilers with a table that are offered to it are met by construction, and exactly: at every decision
    the options that lead to no architecture within the limits have probability 0, so that the policy is a distribution
    over the architectures within them, whose gradient is unbiased. A candidate that was turned away by another limit
    has no score and teaches nothing; `Filter` can tell a bad score instead. Nor do trials of an earlier run: what the
    controller did not draw says nothing of its expected score.

    Args:
        batch: The number of scores for each step of learning.
        learning_rate: The rate of Adam.
        entropy: What one nat of entropy, summed over all decisions, is worth, in standard deviations of the score; the
            greater, the longer it explores.
        baseline: How much of the moving average of scores is kept at each step; scores are taken relative to it, and
            to a moving standard deviation.
        clip: None for plain REINFORCE. A number such as 0.2 clips, as PPO does, the ratio of the probability of an
            architecture to what it was when drawn to within ``1 - clip`` and ``1 + clip``.
        epochs: How many steps are taken with the same scores; more than one needs `clip`.
        hidden: The size of the controller's state.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range; at `setup` if there are several objectives.

    Reference: Zoph, Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, section 3.2; Pham, Guan,
    Zoph, Le, Dean, Efficient Neural Architecture Search via Parameter Sharing, ICML 2018 (one-layer LSTM, entropy,
    moving average); Schulman, Wolski, Dhariwal, Radford, Klimov, Proximal Policy Optimization Algorithms, 2017,
    equation 7. Yang, Bender, Kindermans, Liu, Le, TabNAS, NeurIPS 2022, estimate by sampling which probability limits
    leave, and correct the gradient by it; here it is exact. Deviations: candidates that were drawn before the last step
    of learning are weighted by the ratio of probabilities; the ratio is that of the whole architecture; scores are
    scaled by a moving standard deviation; the first batch has the mean of its other scores as baseline.

    Example:
        >>> from nasmw.strategies import PolicyGradient
        >>> PolicyGradient(batch=16)
        PolicyGradient(batch=16, learning_rate=0.005, entropy=0.02, baseline=0.9, clip=None, epochs=1, hidden=64)
    """

    def __init__(
        self,
        batch: int = 8,
        learning_rate: float = 0.005,
        entropy: float = 0.02,
        baseline: float = 0.9,
        clip: float | None = None,
        epochs: int = 1,
        hidden: int = 64,
    ) -> None:
        name = "PolicyGradient"
        self.batch = whole(name, "batch", batch)
        self.learning_rate = positive(name, "learning_rate", learning_rate)
        self.entropy = share(name, "entropy", entropy)
        self.baseline = share(name, "baseline", baseline)
        self.clip = None if clip is None else positive(name, "clip", clip)
        self.epochs = whole(name, "epochs", epochs)
        self.hidden = whole(name, "hidden", hidden)
        if self.epochs > 1 and self.clip is None:
            raise ValueError(
                f"{name}: several epochs go far from what was drawn; give clip=0.2 as well, or epochs=1, got {epochs!r}"
            )

    def _setup(self, context: Context) -> None:
        one_objective("PolicyGradient", context)
        import torch

        from nasmw.strategies.controller import Controller

        sizes = [len(choice.options) for choice in context.space.choices]
        self._first = np.cumsum([0, *sizes]).tolist()
        self._rng = context.rng
        self._controller = Controller(self._first.pop(), self.hidden, context.rng.spawn(1)[0])
        self._optimizer = torch.optim.Adam(self._controller.parameters, lr=self.learning_rate)
        self._terms: list[Constraint] = []
        self._feasible: FeasibleSet | None = None
        self._asked = 0
        self._open: dict[int, Course] = {}
        self._told: list[tuple[Course, float]] = []
        self._mean: float | None = None
        self._variance = 0.0

    def _offer(self, term: Constraint) -> bool:
        if self._feasible is not None or not by_construction(term):
            return False
        self._terms.append(term)
        return True

    def _ask(self, n: int) -> Candidates:
        from nasmw.strategies.controller import one_thread

        with one_thread():
            courses = [self._course(self._drawn) for _ in range(n)]
        ids = np.arange(self._asked, self._asked + n, dtype=np.int64)
        self._asked += n
        self._open.update(zip(ids.tolist(), courses, strict=True))
        space = self.context.space
        codes = np.concatenate([course.codes for course in courses]).astype(space.dtype, copy=False)
        return Candidates(space, codes, ids)

    def _drawn(self, variable: int, options: Sequence[int], probabilities: Sequence[float]) -> int:
        """Return the place of the option that is taken."""
        reached = np.cumsum(probabilities)
        return min(int(np.searchsorted(reached, self._rng.random() * reached[-1], side="right")), len(options) - 1)

    def _course(self, decide: Callable[[int, Sequence[int], Sequence[float]], int]) -> Course:
        """Return the architecture that comes of decisions: places among the options of a variable that are open."""
        from nasmw.strategies.controller import Course

        if self._feasible is None:
            self._feasible = FeasibleSet.shared(self.context.space, self._terms)
        walk = self._feasible.walk()
        state, start = self._controller.start()
        last = int(start)
        tokens: list[int] = []
        opened: list[tuple[int, ...]] = []
        log_probability = 0.0
        while (variable := walk.variable) is not None:
            numbers = tuple(self._first[variable] + option for option in walk.options)
            state, probabilities = self._controller.decide(state, last, numbers)
            place = decide(variable, walk.options, probabilities.tolist())
            last = numbers[place]
            log_probability += math.log(probabilities[place])
            tokens.append(last)
            opened.append(numbers)
            walk.take(walk.options[place])
        return Course(walk.codes, tuple(tokens), tuple(opened), log_probability)

    def _tell(self, outcomes: Outcomes) -> None:
        for number, score in zip(outcomes.ids.tolist(), outcomes.scores[:, 0].tolist(), strict=True):
            course = self._open.pop(number)
            if math.isfinite(score):
                self._told.append((course, score))
            if len(self._told) == self.batch:
                self._learn()

    def _adopt(self, outcomes: Outcomes) -> None:
        """Leave the policy as it is."""

    def _learn(self) -> None:
        from nasmw.strategies.controller import one_thread

        courses = [course for course, _ in self._told]
        advantages = self._advantages([score for _, score in self._told])
        self._told = []
        if not any(course.tokens for course in courses):
            return
        with one_thread():
            for _ in range(self.epochs):
                gain, entropy = self._gain(courses, advantages)
                self._optimizer.zero_grad()
                (-(gain + self.entropy * entropy)).mean().backward()
                self._optimizer.step()

    def _advantages(self, scores: Sequence[float]) -> list[float]:
        """Return how far scores are above the moving average, in moving standard deviations; take note of them."""
        told = np.array(scores)
        mean = self._mean
        if mean is None:
            above = (told - told.mean()) * (len(told) / max(len(told) - 1, 1))
            self._mean, self._variance = float(told.mean()), float(told.var())
            deviation = math.sqrt(self._variance)
        else:
            above = told - mean
            deviation = math.sqrt(self._variance)
            keep = self.baseline
            self._mean = keep * mean + (1 - keep) * float(told.mean())
            self._variance = keep * self._variance + (1 - keep) * float((above**2).mean())
        advantages: list[float] = (above / (deviation or 1.0)).tolist()
        return advantages

    def _gain(self, courses: Sequence[Course], advantages: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Return what is to be increased for each course, and the sum of its entropies, ``(n,)`` both."""
        import torch

        probability, entropy = self._controller.read(courses)
        before = torch.tensor([course.log_probability for course in courses], dtype=torch.float64)
        above = torch.tensor(advantages, dtype=torch.float64)
        ratio = torch.exp(probability - before)
        gain = ratio * above
        if self.clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - self.clip, 1 + self.clip) * above)
        return gain, entropy
