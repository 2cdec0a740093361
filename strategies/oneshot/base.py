"""Differentiable: what strategies have in common that learn probabilities of options by gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasmw.candidates import Candidates, Codes, Floats, Outcomes
from nasmw.constraint import Constraint
from nasmw.context import Context
from nasmw.cost import CostTable
from nasmw.errors import ConstraintError, OrderError, ProfilerError, SpaceError
from nasmw.feasible import FeasibleSet, by_construction
from nasmw.nn import Gates, ModelSpace
from nasmw.oneshot import Data, Hook, Recipe, Training
from nasmw.oneshot.cutting import cut_where_read
from nasmw.oneshot.evaluator import check_data, check_recipe, check_supernet, digest_of, term_text
from nasmw.penalty import Penalty
from nasmw.strategies.arguments import one_objective, positive, whole
from nasmw.strategies.oneshot.collapse import Skips
from nasmw.strategies.oneshot.costs import Costs
from nasmw.strategies.oneshot.distribution import Distribution, surprise
from nasmw.strategy import Strategy, batch_of_none

__all__ = ["Differentiable"]

Weights = Mapping[str, Tensor | Gates]


class Differentiable(Strategy):
    """Trains a supernet and, by gradients, a probability for each option; then asks for the likeliest networks.

    `train` does the learning, once, before the first ask. A subclass says what runs in a step. What is asked for then
    does not depend on what is told: the likeliest networks within the limits that were offered, each once, in order
    of their probability, found exactly over the tables. The strategy is exhausted when all have been asked for. A
    network is as likely as the likeliest draw of all choices that gives it, so without limits the first one has the
    likeliest option of every choice.

    Limits on profilers with a table that are offered are kept by construction; those with a `CostTable` are terms of
    the loss as well, with multipliers that are adapted until the likeliest network is within them. Penalties that are
    offered are terms of the loss, on exact expectations.

    Args:
        data: The examples for training and validation.
        recipe: How the weights are trained.
        architecture_rate: The rate of Adam for the scores of options.
        architecture_decay: The weight decay of the scores.
        warmup: For how many epochs only weights are trained.
        multiplier_rate: By how much the multiplier of a limit grows in one step while the likeliest network is beyond
            it by the whole range of the cost.
        hooks: Called as the training goes on.
    """

    betas = (0.5, 0.999)
    """Of Adam for the scores."""

    def __init__(
        self,
        data: Data,
        recipe: Recipe | None = None,
        *,
        architecture_rate: float = 3e-3,
        architecture_decay: float = 1e-3,
        warmup: int = 0,
        multiplier_rate: float = 0.1,
        hooks: Sequence[Hook] = (),
    ) -> None:
        name = type(self).__name__
        self.data = check_data(name, data)
        self.recipe = check_recipe(name, recipe)
        self.architecture_rate = positive(name, "architecture_rate", architecture_rate)
        self.architecture_decay = _at_least_0(name, "architecture_decay", architecture_decay)
        self.warmup = whole(name, "warmup", warmup, least=0)
        self.multiplier_rate = positive(name, "multiplier_rate", multiplier_rate)
        self._hooks = tuple(hooks)  # they change nothing, so they do not identify the stage

    # -- what a subclass implements -----------------------------------------------------------------------------

    @abstractmethod
    def _learn(self, batch: tuple[Any, Any], held: Iterator[tuple[Any, Any]]) -> float:
        """Do one step of the weights, and one of the scores unless it is too early; return the loss of the former.

        Args:
            batch: Inputs and targets for training.
            held: Gives batches for validation.
        """

    # -- the stage ----------------------------------------------------------------------------------------------

    def _setup(self, context: Context) -> None:
        name = type(self).__name__
        one_objective(name, context)
        self._space = check_supernet(name, context.space)
        stiff = [choice for choice, mixes in self._space.mixable.items() if not mixes]
        if stiff:
            paths = ", ".join(place.path for place in self._space.places(stiff[0])) or "the space itself"
            raise SpaceError(
                f"{name} runs mixtures of options, and what choice {stiff[0]!r} decides on (in {paths}) cannot be mixed"
                "; let a LayerChoice decide between modules there, or score single paths by SupernetEvaluator"
            )
        self._limits: list[Constraint] = []
        self._penalties: list[Penalty] = []
        self._training: Training | None = None
        self._ranking: Iterator[Candidates] | None = None
        self._next: Codes | None = None
        self._ended = False
        self._adopted: set[bytes] = set()

    def _offer(self, term: Constraint) -> bool:
        if self._training is not None or not by_construction(term):
            return False
        self._limits.append(term)
        return True

    def _offer_penalty(self, penalty: Penalty) -> bool:
        name = type(self).__name__
        if self._training is not None:
            return False
        if not isinstance(penalty.profiler.table, CostTable):
            raise ProfilerError(
                f"{name} pays for a cost by its exact expectation, which is known from a CostTable, and "
                f"{penalty.profiler!r} has none; use a profiler with one (FlopsProfiler, ParamsProfiler, "
                "LookupTableProfiler with a latency table), or a Filter, which also takes profilers without"
            )
        self._penalties.append(penalty)
        return True

    def _train(self, context: Context) -> None:
        """Train, unless that is done."""
        if self._training is not None:
            return
        self._feasible = FeasibleSet.shared(context.space, self._limits)
        if self._feasible.empty:
            raise ConstraintError(str(self._feasible.diagnose()))
        terms = [*map(term_text, self._limits), *(f"{p!r} {digest_of(p.profiler.table)}" for p in self._penalties)]
        training = Training(
            context,
            self._space,
            self.data,
            self.recipe,
            name=type(self).__name__.lower(),
            identity=f"{self!r} {' '.join(terms)}",
            hooks=self._hooks,
        )
        self._distribution = Distribution(self._space, training.rng, training.device)
        if next(self._ranked(), None) is None:  # better known now than after the training
            raise ConstraintError(str(self._feasible.diagnose()))
        self._training = training
        self._costs = Costs(self._penalties, self._limits, self.multiplier_rate)
        self._skips = Skips(self._space)
        self._optimizer = torch.optim.Adam(
            list(self._distribution.scores.values()),
            lr=self.architecture_rate,
            betas=self.betas,
            weight_decay=self.architecture_decay,
        )
        training.parts |= {"scores": self._distribution, "costs": self._costs, "adam": self._optimizer}
        self._once = cut_where_read(training)
        training.run(self._epoch)
        self._skips.report(type(self).__name__, training.history, self._costs.dear(training.history))
        self._ranking = self._ranked()

    def _ranked(self) -> Iterator[Candidates]:
        """Return the networks within the limits, the likeliest first."""
        return self._feasible.ascending(surprise(self._space, self._distribution.numbers()))

    def _epoch(self) -> dict[str, Any]:
        training = self._trained
        held = training.endless("validation")
        total = 0.0
        for batch in training.batches("train"):
            loss = self._learn(batch, held)
            training.update(loss)
            total += loss
        with torch.no_grad():
            costs = self._costs.report(self._distribution.probabilities())
        likeliest = self._distribution.likeliest()
        skips, skippable = self._skips.count(likeliest)
        return {
            "loss": total / self.data.steps("train"),
            "entropy": self._distribution.entropy(),
            **costs,
            **({"skips": skips, "skippable": skippable} if self._skips.options else {}),
            "likeliest": {name: str(option) for name, option in likeliest.items()},
        }

    def _ask(self, n: int) -> Candidates:
        rows: list[Codes] = []
        while len(rows) < n and (row := self._peek()) is not None:
            rows.append(row)
            self._next = None
        space = self.context.space
        return Candidates.of(space, np.concatenate(rows)) if rows else batch_of_none(space)

    def _peek(self) -> Codes | None:
        """Return the next network to be asked for; None where there is none."""
        self.train(self.context)  # what asks without a Search need not know of training
        assert self._ranking is not None
        while not self._ended and (self._next is None or self._next.tobytes() in self._adopted):
            found = next(self._ranking, None)
            self._next = None if found is None else found.codes
            self._ended = found is None
        return self._next

    def _tell(self, outcomes: Outcomes) -> None:
        """Take no note: everything was learnt before the first ask."""

    def _adopt(self, outcomes: Outcomes) -> None:
        """Never ask again for what an earlier run asked for."""
        self._adopted.update(outcomes.candidates.row_keys())

    @property
    def exhausted(self) -> bool:
        """Whether every network within the limits has been asked for."""
        self.context  # noqa: B018  raises before setup
        return self._peek() is None

    # -- what became of the training ----------------------------------------------------------------------------

    @property
    def _trained(self) -> Training:
        if self._training is None:
            raise OrderError(f"{type(self).__name__} is not trained yet: a Search does that before the first ask")
        return self._training

    @property
    def supernet(self) -> ModelSpace:
        """The supernet with the weights that were trained.

        Raises:
            OrderError: Before `train`.
        """
        self.context  # noqa: B018  raises before setup
        return self._trained.supernet

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record for each epoch: loss, entropy, expected costs, multipliers and the likeliest network.

        Where layers may be skipped, ``"skips"`` of the ``"skippable"`` ones of the likeliest network are.

        Raises:
            OrderError: Before `train`.
        """
        self.context  # noqa: B018  raises before setup
        return self._trained.history

    @property
    def probabilities(self) -> dict[str, Floats]:
        """The probabilities of each choice's options.

        Raises:
            OrderError: Before `train`.
        """
        self.context  # noqa: B018  raises before setup
        self._trained  # noqa: B018  raises before training
        return {name: np.exp(numbers) for name, numbers in self._distribution.numbers().items()}

    # -- steps that subclasses have in common --------------------------------------------------------------------

    @property
    def _warm(self) -> bool:
        """Whether scores are trained by now."""
        return self._trained.epochs >= self.warmup

    def _mixed_loss(self, weights: Weights, batch: tuple[Any, Any]) -> Tensor:
        """Return the loss of a mixture on a batch."""
        training = self._trained
        with training.supernet.mix(weights, once=self._once), training.autocast():
            return self.recipe.loss(training.supernet(batch[0]), batch[1])

    def _score_step(self, loss: Tensor) -> None:
        """Take one step of the scores down the gradient of a loss with the costs added; weights stay as they are."""
        self._trained.check(loss, "its loss on the validation data")
        scaler = self._trained.scaler
        scores = list(self._distribution.scores.values())
        total = self._costs.added(loss, self._distribution.probabilities())
        factor = scaler.get_scale() if scaler.is_enabled() else 1.0
        gradients = torch.autograd.grad(total * factor, scores, allow_unused=True)
        self._move(gradients, factor)

    def _joint_step(self, loss: Tensor) -> None:
        """Add up the gradients of the weights, and take one step of the scores, on one loss with the costs added."""
        scaler = self._trained.scaler
        factor = scaler.get_scale() if scaler.is_enabled() else 1.0
        self._trained.backward(self._costs.added(loss, self._distribution.probabilities()))
        self._move([score.grad for score in self._distribution.scores.values()], factor)

    def _move(self, gradients: Sequence[Tensor | None], factor: float) -> None:
        """Take one step of the scores, and let the multipliers follow."""
        scores = self._distribution.scores.values()
        for score, gradient in zip(scores, gradients, strict=True):
            score.grad = None if gradient is None else gradient / factor
        if all(score.grad is None or bool(torch.isfinite(score.grad).all()) for score in scores):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._costs:
            self._costs.adapt(self._distribution.likeliest())


def _at_least_0(stage: str, name: str, value: object) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else positive(stage, name, value)
