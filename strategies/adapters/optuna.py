"""OptunaStrategy: any Optuna sampler as a strategy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from nasmw.candidates import Candidates, Outcomes
from nasmw.context import Context
from nasmw.strategies.adapters.library import Adapter, checked, imported, matters, required
from nasmw.strategies.arguments import flag

__all__ = ["OptunaStrategy"]

NEEDS_NUMBERS = ("CmaEsSampler", "QMCSampler")
ENDS_STUDIES = ("BruteForceSampler", "GridSampler")
KNOW_LIMITS = {"GPSampler", "NSGAIISampler", "NSGAIIISampler", "TPESampler"}


class OptunaStrategy(Adapter):
    """An Optuna sampler that is asked for one choice after the other, and told the scores.

    Only active choices are suggested, gates before what they gate, as in a program that Optuna's users write. Optuna
    sees the numbers of options. A candidate without a score is a failed trial to it. Samplers that know limits (TPE,
    GP, NSGA-II, NSGA-III) are told by how much a candidate that a `Filter` turned away is beyond them, as constraints
    of its trial; no limit is met by construction. Several objectives are passed on to samplers that can deal with them.
    Samplers suggest architectures again that they hold good: in a small space, under `Deduplicate`, runs end early.

    Args:
        sampler: The class of a sampler, its name in ``optuna.samplers``, or a function that takes a seed and returns
            a sampler.
        ordinal: Whether options are handed over as whole numbers, in their order, instead of as categories. Samplers
            that know numbers alone (CMA-ES, QMC) need it.
        **options: What the class is made with, besides ``seed``.

    Raises:
        MissingExtraError: If Optuna is not installed.
        TypeError: If the sampler is an object, or ``seed`` is among the options.
        ValueError: At `setup`, if the sampler knows no categories, ends studies on its own, or cannot deal with several
            objectives and there are several.
        AdapterError: During a run, if Optuna fails.

    Reference: Akiba, Sano, Yanase, Ohta, Koyama, Optuna: A Next-generation Hyperparameter Optimization Framework,
    KDD 2019, section 3.
    """

    package = "optuna"

    def __init__(self, sampler: str | type | Callable[[int], Any], *, ordinal: bool = False, **options: Any) -> None:
        required("optuna")
        self.sampler = checked(
            "OptunaStrategy", sampler, "a sampler", "OptunaStrategy('TPESampler', multivariate=True)"
        )
        self.ordinal = flag("OptunaStrategy", "ordinal", ordinal)
        if "seed" in options:
            raise TypeError("OptunaStrategy seeds its sampler from the seed of the run; leave `seed` out")
        self.options = options

    def _setup(self, context: Context) -> None:
        super()._setup(context)
        optuna = imported("optuna")
        seed = int(context.rng.integers(2**31))
        self._trials: dict[int, Any] = {}
        self._asked = 0
        with self._surroundings.entered():
            self._study = self._made_study(optuna, context, seed)
            name = type(self._study.sampler).__name__
            if name in ENDS_STUDIES:
                raise ValueError(f"OptunaStrategy: {name} ends studies on its own; take nasmw.strategies.Grid instead")
            if name in NEEDS_NUMBERS and not self.ordinal:
                raise ValueError(
                    f"OptunaStrategy: {name} knows no categories, and would draw all options at random; where they "
                    "have an order, hand them over as numbers with ordinal=True"
                )
            if len(context.objectives) > 1:
                self._suggested(self._made_study(optuna, context, seed).ask())  # raises where it cannot

    def _made_study(self, optuna: Any, context: Context, seed: int) -> Any:
        kind: Any = self.sampler
        if isinstance(kind, str):
            kind = getattr(optuna.samplers, kind, None)
            if kind is None:
                raise ValueError(
                    f"OptunaStrategy: optuna.samplers has no {self.sampler!r}; it has {optuna.samplers.__all__}"
                )
        if inspect.isclass(kind):
            seeded = {"seed": seed} if "seed" in inspect.signature(kind).parameters else {}
            sampler = kind(**seeded, **self.options)
        else:
            sampler = kind(seed, **self.options)
        return optuna.create_study(sampler=sampler, directions=["maximize"] * len(context.objectives))

    def _distribution(self, column: int) -> Any:
        distributions = imported("optuna.distributions")
        number = len(self.context.space.choices[column].options)
        if self.ordinal:
            return distributions.IntDistribution(0, number - 1)
        return distributions.CategoricalDistribution(range(number))

    def _suggested(self, trial: Any) -> list[int]:
        """Return the codes that the sampler suggests for one trial."""
        space = self.context.space
        row = [0] * len(space)
        for column, choice in enumerate(space.choices):
            if not matters(space, column, row):
                continue
            number = len(choice.options)
            if self.ordinal:
                row[column] = trial.suggest_int(choice.name, 0, number - 1)
            else:
                row[column] = trial.suggest_categorical(choice.name, range(number))
        return row

    def _ask(self, n: int) -> Candidates:
        trials, rows = [], []
        with self._library():
            for _ in range(n):
                trials.append(self._study.ask())
                rows.append(self._suggested(trials[-1]))
        ids = np.arange(self._asked, self._asked + n, dtype=np.int64)
        self._asked += n
        self._trials.update(zip(ids.tolist(), trials, strict=True))
        return Candidates(self.context.space, self._canonical(rows), ids)

    def _tell(self, outcomes: Outcomes) -> None:
        optuna = imported("optuna")
        violations = self._violations(outcomes)
        with self._library():
            for place, number in enumerate(outcomes.ids.tolist()):
                trial = self._trials.pop(number)
                values = self._values(outcomes, place, bool(violations[place].any()))
                if values is None:
                    self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                self._constrain(trial, violations[place].tolist())
                self._study.tell(trial, values)

    def _constrain(self, trial: Any, violations: list[float]) -> None:
        for number, (limit, violation) in enumerate(zip(self._limits, violations, strict=True)):
            trial.set_constraint(f"{number}: {limit}", violation)

    def _values(self, outcomes: Outcomes, place: int, beyond: bool) -> list[float] | None:
        """Return what is told as the values of a candidate; None where its trial failed."""
        scores = outcomes.scores[place]
        if self._scored(scores):
            values: list[float] = scores.tolist()
            return values
        kinds = {kind.__name__ for kind in type(self._study.sampler).__mro__}
        if not beyond or not kinds & KNOW_LIMITS:
            return None
        # Samplers look at the limits before they look at the values of what is beyond them.
        return [0.0 if worst != worst else worst for worst in self._worst.tolist()]

    def _adopt(self, outcomes: Outcomes) -> None:
        optuna = imported("optuna")
        space = self.context.space
        active = space.active(outcomes.codes)
        violations = self._violations(outcomes)
        with self._library():
            for place, row in enumerate(outcomes.codes):
                if not self._scored(outcomes.scores[place]):
                    continue
                columns = [column for column in range(len(space)) if active[place, column]]
                names = space.names
                trial = optuna.trial.create_trial(
                    params={names[column]: int(row[column]) for column in columns},
                    distributions={names[column]: self._distribution(column) for column in columns},
                    values=outcomes.scores[place].tolist(),
                )
                self._constrain(trial, violations[place].tolist())
                self._study.add_trial(trial)
