"""What other libraries search with, driven as their own documentation does: bare, and behind a loop that checks.

A peer knows the choices and options of a space, is asked for one network at a time and told its score. *Bare*, every
network it gives is evaluated; where the library knows limits, it is told by how much one is beyond them. *Checked*,
what is beyond a limit, or has been evaluated, costs no evaluation (`checked_search`): a check that costs nothing is
available to everybody. The library is then told by how much it is beyond the limits, or the known score once more;
some search better if they are not told, which is an option of theirs.
"""

from __future__ import annotations

import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from table_search import Problem, Run

from nasmw.candidates import Floats

__all__ = [
    "LOOP",
    "Made",
    "NevergradPeer",
    "OptunaPeer",
    "Peer",
    "PymooPeer",
    "bare_search",
    "checked_search",
    "nni_search",
]

TRIES = 30
"""How many candidates in a row may cost no evaluation before the loop takes a random new network within the limits.

It is evaluated, counted as a substitute, and suggested to libraries that can be told what they did not ask for.
"""
PLANNED = 4
"""How many candidates the loop is expected to need for an evaluation, for libraries that plan with a number."""
LOOP = f"{TRIES} tries"


class Peer(ABC):
    """A foreign optimizer on one problem; made afresh for each run.

    Args:
        problem: What is searched.
        seed: The seed.
        budget: About how many candidates will be asked for.

    Attributes:
        knows_others: Whether the library can be told of networks that it did not give (`take`).
    """

    knows_others = False

    @abstractmethod
    def __init__(self, problem: Problem, seed: int, budget: int) -> None: ...

    @abstractmethod
    def ask(self) -> tuple[Any, Sequence[int]]:
        """Return what the library calls a candidate, and its codes."""

    @abstractmethod
    def tell(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        """Tell the scores of a candidate, maximised, and by what share it is beyond each limit."""

    def refuse(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        """Tell of a candidate that is not evaluated: its known scores, or the worst ones where it is beyond a limit."""
        self.tell(candidate, scores, excess)

    def take(self, codes: Sequence[int]) -> Any:
        """Return a network that the library did not give as a candidate that can be told."""
        raise NotImplementedError(f"{type(self).__name__} is told what it gave, and nothing else")


def bare_search(problem: Problem, make: Made, evaluations: int, seed: int) -> Run:
    """Evaluate whatever a peer asks for."""
    make(problem, seed, evaluations)  # what a library does once, as it is imported, is not timed
    start = time.process_time()
    peer = make(problem, seed, evaluations)
    rows = []
    for _ in range(evaluations):
        candidate, codes = peer.ask()
        row = problem.row(codes)
        rows.append(row)
        peer.tell(candidate, problem.scores[row], problem.excess[row])
    return Run(np.array(rows), time.process_time() - start, evaluations)


def checked_search(problem: Problem, make: Made, evaluations: int, seed: int) -> Run:
    """Evaluate what a peer asks for, unless it is beyond a limit or was evaluated before.

    What is beyond a limit has no scores: it is told with the worst so far, and with its excess.
    """
    make(problem, seed, evaluations)  # what a library does once, as it is imported, is not timed
    start = time.process_time()
    peer = make(problem, seed, PLANNED * evaluations)
    rows: list[int] = []
    known: dict[int, int] = {}
    worst = np.zeros(problem.scores.shape[1])
    proposals = substitutes = turned_away = 0
    spare = iter(np.random.default_rng(seed).permutation(np.flatnonzero(problem.inside)).tolist())
    while len(rows) < evaluations:
        candidate, codes = peer.ask()
        row = problem.row(codes)
        proposals += 1
        if not problem.inside[row] or problem.networks[row] in known:
            scores = problem.scores[known[problem.networks[row]]] if problem.inside[row] else worst
            peer.refuse(candidate, scores, problem.excess[row])
            turned_away += 1
            if turned_away < TRIES:
                continue
            row = next((other for other in spare if problem.networks[other] not in known), -1)
            if row < 0:
                break
            substitutes += 1
            if peer.knows_others:
                peer.tell(peer.take(problem.benchmark.codes[row].tolist()), problem.scores[row], problem.excess[row])
        else:
            peer.tell(candidate, problem.scores[row], problem.excess[row])
        turned_away = 0
        known[problem.networks[row]] = row
        rows.append(row)
        worst = problem.scores[rows].min(axis=0)
    return Run(np.array(rows), time.process_time() - start, proposals, substitutes)


@attrs.frozen
class Made:
    """Makes a peer of one kind with some options; its repr says which."""

    kind: type[Peer]
    options: dict[str, Any] = attrs.field(factory=dict)

    def __call__(self, problem: Problem, seed: int, budget: int) -> Peer:
        return self.kind(problem, seed, budget, **self.options)


class OptunaPeer(Peer):
    """An Optuna sampler, asked and told through a study in memory; what is refused is a failed trial unless told."""

    knows_others = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        budget: int,
        sampler: str = "TPESampler",
        told: bool = True,
        **options: Any,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = problem.benchmark.space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some options are experimental
            made = getattr(optuna.samplers, sampler)(seed=seed, **options)
        self._study = optuna.create_study(sampler=made, directions=["maximize"] * len(problem.told))
        self._told, self._failed = told, optuna.trial.TrialState.FAIL

    def ask(self) -> tuple[Any, Sequence[int]]:
        trial = self._study.ask()
        return trial, [
            trial.suggest_categorical(choice.name, range(len(choice.options))) for choice in self._space.choices
        ]

    def tell(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        for number, beyond in enumerate(excess.tolist()):
            candidate.set_constraint(str(number), beyond)
        self._study.tell(candidate, scores.tolist())

    def refuse(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        if self._told:
            self.tell(candidate, scores, excess)
        else:
            self._study.tell(candidate, state=self._failed)

    def take(self, codes: Sequence[int]) -> Any:
        self._study.enqueue_trial({choice.name: code for choice, code in zip(self._space.choices, codes, strict=True)})
        return self.ask()[0]


class NevergradPeer(Peer):
    """A Nevergrad optimizer over categorical parameters that move between options.

    Choices with as many options are one parameter with repetitions: separate ones give the same networks, and take four
    times as long.
    """

    knows_others = True

    def __init__(
        self, problem: Problem, seed: int, budget: int, optimizer: str = "DiscreteOnePlusOne", told: bool = True
    ) -> None:
        import nevergrad

        sizes = [len(choice.options) for choice in problem.benchmark.space.choices]
        self._columns = {size: [place for place, own in enumerate(sizes) if own == size] for size in sizes}
        made = [
            nevergrad.p.TransitionChoice(range(size), repetitions=len(columns), ordered=False)
            for size, columns in self._columns.items()
        ]
        parameters = nevergrad.p.Tuple(*made)
        parameters.random_state = np.random.RandomState(seed)
        np.random.seed(seed)  # some optimizers draw from the global generator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer = nevergrad.optimizers.registry[optimizer](parameters, budget, 1)
        self._told = told

    def refuse(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        if self._told:
            self.tell(candidate, scores, excess)

    def ask(self) -> tuple[Any, Sequence[int]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            candidate = self._optimizer.ask()
        codes = [0] * sum(map(len, self._columns.values()))
        for columns, values in zip(self._columns.values(), candidate.value, strict=True):
            for column, code in zip(columns, values, strict=True):
                codes[column] = int(code)
        return candidate, codes

    def take(self, codes: Sequence[int]) -> Any:
        self._optimizer.suggest(tuple(tuple(codes[column] for column in own) for own in self._columns.values()))
        return self.ask()[0]

    def tell(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        losses = (-scores).tolist()
        loss = losses[0] if len(losses) == 1 else losses
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (excess > 0).any():
                self._optimizer.tell(candidate, loss, np.maximum(excess, 0.0).tolist())
            else:
                self._optimizer.tell(candidate, loss)


def nni_search(problem: Problem, evaluations: int, seed: int, *, checked: bool, **options: Any) -> Run:
    """Search with NNI's RegularizedEvolution, and its Filter where candidates are checked, on its sequential engine.

    NNI knows no limits: bare, a network beyond them is evaluated and has no metric, which its evolution skips.

    Args:
        problem: What is searched.
        evaluations: After how many the engine's budget is spent.
        seed: The seed of the strategy.
        checked: Whether the Filter turns away what is beyond a limit or was evaluated before.
        **options: Those of RegularizedEvolution, as in ``population_size=20``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nni
        from nni.mutable import Categorical, MutableDict
        from nni.nas.execution import SequentialExecutionEngine
        from nni.nas.space import ExecutableModelSpace, ModelStatus
        from nni.nas.strategy import RegularizedEvolution
        from nni.nas.strategy.middleware import Chain, Filter
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    choices = problem.benchmark.space.choices
    rows: list[int] = []
    seen: set[int] = set()
    proposals = 0

    class TableSpace(ExecutableModelSpace):  # type: ignore[misc]
        """The choices alone: nothing is built."""

        def __init__(self) -> None:
            super().__init__()
            self.mutables = MutableDict(
                {choice.name: Categorical(range(len(choice.options)), label=choice.name) for choice in choices}
            )
            self.evaluator = None
            self.sample = None

        def leaf_mutables(self, is_leaf: Any) -> Any:
            yield from self.mutables.leaf_mutables(is_leaf)

        def check_contains(self, sample: Any) -> Any:
            return self.mutables.check_contains(sample)

        def freeze(self, sample: Any) -> Any:
            self.validate(sample)
            frozen = type(self)()
            frozen.status = ModelStatus.Frozen
            frozen.sample = dict(sample)
            return frozen

        @property
        def row(self) -> int:
            assert self.sample is not None
            return problem.row([self.sample[choice.name] for choice in choices])

        def execute(self) -> None:
            row = self.row
            rows.append(row)
            seen.add(problem.networks[row])
            if problem.inside[row]:
                nni.report_final_result(float(problem.scores[row, 0]))

    def passes(model: TableSpace) -> bool:
        nonlocal proposals
        proposals += 1
        return bool(problem.inside[model.row]) and problem.networks[model.row] not in seen

    start = time.process_time()
    strategy = RegularizedEvolution(seed=seed, **options)
    if checked:
        strategy = Chain(strategy, Filter(passes, patience=10_000, retain_history=False))
    strategy(TableSpace(), SequentialExecutionEngine(max_model_count=evaluations))
    return Run(np.array(rows, dtype=np.intp), time.process_time() - start, max(proposals, len(rows)))


class PymooPeer(Peer):
    """pymoo's NSGA-II over integers, with the operators that its documentation has for them.

    A generation is told when all of it is. Where nothing new can be bred, random networks are asked for, and not told.
    """

    def __init__(self, problem: Problem, seed: int, budget: int, population_size: int = 20) -> None:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem as Described
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

        most = np.array([len(choice.options) - 1 for choice in problem.benchmark.space.choices])
        described = Described(
            n_var=len(most), n_obj=len(problem.told), n_ieq_constr=len(problem.limits), xl=0, xu=most, vtype=int
        )
        self._limits = len(problem.limits)
        self._algorithm = NSGA2(
            pop_size=population_size,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
            mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        )
        self._algorithm.setup(described, termination=NoTermination(), seed=seed, verbose=False)
        self._most, self._rng = most, np.random.default_rng(seed)
        self._generation: Any = []
        self._next = 0
        self._told: list[tuple[Floats, Floats]] = []

    def ask(self) -> tuple[Any, Sequence[int]]:
        if self._next == len(self._generation):
            bred = self._algorithm.ask()
            self._generation, self._next, self._told = [] if bred is None else bred, 0, []
        if not len(self._generation):
            return False, self._rng.integers(0, self._most + 1).tolist()
        self._next += 1
        return True, self._generation[self._next - 1].X.astype(int).tolist()

    def tell(self, candidate: Any, scores: Floats, excess: Floats) -> None:
        from pymoo.problems.static import StaticProblem

        if not candidate:
            return
        self._told.append((-scores, excess))
        if len(self._told) == len(self._generation):
            losses, beyond = (np.array(values) for values in zip(*self._told, strict=True))
            values = {"F": losses, **({"G": beyond} if self._limits else {})}
            self._algorithm.evaluator.eval(StaticProblem(self._algorithm.problem, **values), self._generation)
            self._algorithm.tell(infills=self._generation)
