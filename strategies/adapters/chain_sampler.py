"""ChainSampler: a chain as the sampler of an Optuna study."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.context import Context
from nasmw.errors import DeadlockError, OrderError, SpaceError
from nasmw.objective import Objective
from nasmw.space import Space
from nasmw.strategies.adapters.library import imported, matters
from nasmw.strategies.arguments import whole
from nasmw.strategy import Strategy

__all__ = ["ChainSampler", "suggest"]


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """Return the architecture of an Optuna trial, by suggesting all choices that are active, one after the other.

    Args:
        trial: The ``optuna.Trial``.
        space: The space; options are numbers, texts, bools or None, as Optuna stores them.

    Raises:
        SpaceError: If an option is of another type.
    """
    row = [0] * len(space)
    for column, choice in enumerate(space.choices):
        if strange := [option for option in choice.options if not isinstance(option, (Real, str, type(None)))]:
            raise SpaceError(
                f"Optuna stores numbers, texts, bools and None; choice {choice.name!r} has the option {strange[0]!r}"
            )
        if matters(space, column, row):
            row[column] = choice.options.index(trial.suggest_categorical(choice.name, choice.options))
    return space.decode(np.array(row, dtype=space.dtype))


class ChainSampler:
    """A chain, or a strategy, as the sampler of an Optuna study: ``create_study(sampler=ChainSampler(chain, space))``.

    It is an ``optuna.samplers.BaseSampler``. Every trial of the study is a candidate of the chain; the objective
    suggests its active choices by their names, as `suggest` does. Middleware sees the values of the study as metrics
    named ``study.metric_names``, or ``"value"``, ``"value1"``, ..., and numbers among the user attributes of a trial by
    their names. Trials that another sampler made, or that were enqueued, are adopted. A pruned trial has its last
    intermediate value as score where there is one objective. Once the chain is exhausted, it stops the study.

    A chain's state lives in this object: one process, any number of threads. It is no replay; a study that goes on
    with a new sampler goes on from the trials that it holds.

    Args:
        chain: The chain, or the strategy.
        space: What is searched.
        seed: From which every random number of the chain follows.

    Raises:
        MissingExtraError: If Optuna is not installed.
        TypeError: If an argument is of the wrong kind.
        ValueError: During a study, if the objective suggests a parameter that is no active choice of the candidate, or
            from a distribution without the option.
        SpaceError: If it suggests fewer parameters than there are active choices.
    """

    def __new__(cls, *arguments: Any, **settings: Any) -> ChainSampler:
        """Return an object that is a sampler of Optuna's as well."""
        base = imported("optuna.samplers").BaseSampler
        made: ChainSampler = object.__new__(cls if issubclass(cls, base) else type(cls.__name__, (cls, base), {}))
        return made

    def __init__(self, chain: Strategy, space: Space, seed: int = 0) -> None:
        if not isinstance(chain, Strategy):
            raise TypeError(f"ChainSampler takes a strategy or a Chain first, got {chain!r}")
        if not isinstance(space, Space):
            raise TypeError(f"ChainSampler takes a Space second, got {space!r}")
        self.chain = chain
        self.space = space
        self.seed = whole("ChainSampler", "seed", seed, least=0)
        self._study: str | None = None
        self._signs: Sequence[float] = ()
        self._names: Sequence[str] = ()
        self._open: dict[int, Candidates] = {}
        self._lock = threading.RLock()

    def __str__(self) -> str:
        return f"ChainSampler({self.chain!r})"

    def __reduce__(self) -> str:
        """Refuse: the state of a chain lives in one process.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{self} cannot be pickled or copied; keep the study in a storage, and go on with "
            "create_study(storage=..., study_name=..., load_if_exists=True, sampler=ChainSampler(...))"
        )

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        """Return nothing: choices are looked up one by one, as the objective comes to them."""
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        """Return nothing, as above."""
        return {}

    def reseed_rng(self) -> None:
        """Do nothing: threads share this sampler."""

    def before_trial(self, study: Any, trial: Any) -> None:
        """Ask the chain for the candidate of a trial.

        Raises:
            DeadlockError: If the chain gives nothing before it is told more, or has come to its end.
        """
        with self._lock:
            if self._study is None:
                self._begin(study, trial)
            elif self._study != study.study_name:
                raise OrderError(f"{self} belongs to the study {self._study!r}; make one for each study")
            batch = self.chain.ask(1) if not self.chain.exhausted else self._none
            if not len(batch):
                raise DeadlockError(
                    f"{self} has no candidate for trial {trial.number}: "
                    + (
                        self.chain.message or "it is exhausted"
                        if self.chain.exhausted
                        else f"it waits for the outcomes of {len(self._open)} trials; run fewer at a time"
                    )
                )
            self._open[trial.number] = batch

    @property
    def _none(self) -> Candidates:
        return self.space.candidates([])

    def _begin(self, study: Any, trial: Any) -> None:
        """Start a run of the chain, which adopts what the study holds."""
        self._study = study.study_name
        self._signs = [1.0 if direction.name == "MAXIMIZE" else -1.0 for direction in study.directions]
        self._names = study.metric_names or [f"value{number or ''}" for number in range(len(self._signs))]
        objectives = [
            Objective(name, "maximize" if sign > 0 else "minimize")
            for name, sign in zip(self._names, self._signs, strict=True)
        ]
        self.chain.setup(Context(self.space, tuple(objectives), self.seed))
        for earlier in study.get_trials(deepcopy=False):
            if earlier.state.is_finished() and earlier.number != trial.number:
                self._adopt(earlier, earlier.state, earlier.values)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Return the candidate's option of a choice."""
        with self._lock:
            (architecture,) = self._open[trial.number]
        if param_name not in architecture:
            self.space.column(param_name)
            raise ValueError(
                f"trial {trial.number} suggests {param_name!r}, which does not matter in its architecture "
                f"{architecture!r}; suggest a choice only where its condition holds, as `suggest` does"
            )
        option = architecture[param_name]
        if not any(option == known and type(option) is type(known) for known in _options(param_distribution, option)):
            raise ValueError(
                f"{param_name!r} is {option!r} in trial {trial.number}, which {param_distribution!r} does not have; "
                "suggest it with the options of the space"
            )
        return option

    def after_trial(self, study: Any, trial: Any, state: Any, values: Sequence[float] | None) -> None:
        """Tell the chain what became of a trial."""
        with self._lock:
            batch = self._open.pop(trial.number, None)
            if batch is None:
                return
            row = None if state.name != "COMPLETE" else self.space.encode(trial.params)
            if row is None or np.array_equal(row, batch.codes[0]):
                self.chain.tell(self._outcome(batch, trial, state, values))
            else:  # the trial was enqueued: its parameters are not those of the candidate
                missed = np.full((1, len(self._signs)), np.nan)
                self.chain.tell(Outcomes(batch, [Status.SKIPPED], missed, {}, ["other parameters were enqueued"]))
                self._adopt(trial, state, values)
            ended = self.chain.exhausted
        if ended:
            _stop(study)

    def _adopt(self, trial: Any, state: Any, values: Sequence[float] | None) -> None:
        try:
            candidate = self.space.candidates([trial.params])
        except SpaceError:
            return  # a trial of other parameters is not about this space
        self.chain.adopt(self._outcome(candidate, trial, state, values))

    def _outcome(self, candidate: Candidates, trial: Any, state: Any, values: Sequence[float] | None) -> Outcomes:
        status = {"COMPLETE": Status.COMPLETED, "PRUNED": Status.STOPPED}.get(state.name, Status.FAILED)
        if state.name == "PRUNED" and values is None and len(self._signs) == 1 and trial.intermediate_values:
            values = [trial.intermediate_values[max(trial.intermediate_values)]]
        metrics = {name: [value] for name, value in _numbers(trial.user_attrs)}
        scores = np.full((1, len(self._signs)), np.nan)
        if values is not None and status is not Status.FAILED:
            scores[0] = np.multiply(self._signs, values)
            metrics.update((name, [float(value)]) for name, value in zip(self._names, values, strict=True))
        return Outcomes(candidate, [status], scores, {name: np.array(value) for name, value in metrics.items()})


def _options(distribution: Any, option: Any) -> Sequence[Any]:
    """Return what a distribution may give: its choices, or the option itself where it is in range."""
    if hasattr(distribution, "choices"):
        choices: Sequence[Any] = distribution.choices
        return choices
    inside = isinstance(option, (int, float)) and distribution._contains(distribution.to_internal_repr(option))
    return [option] if inside else []


def _numbers(attributes: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in attributes.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def _stop(study: Any) -> None:
    """Stop a study that runs in `Study.optimize`; one that is asked and told by hand stops at its next ask."""
    try:
        study.stop()
    except RuntimeError:
        return
