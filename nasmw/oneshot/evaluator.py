"""SupernetEvaluator: scores networks by the weights that they inherit from one supernet."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasmw.candidates import Architecture
from nasmw.constraint import Constraint, Constraints
from nasmw.context import Context
from nasmw.cost import CostTable
from nasmw.errors import LogMismatchError, OrderError, ProfilerError, SpaceError
from nasmw.evaluator import Evaluator
from nasmw.feasible import FeasibleSet
from nasmw.limits import as_constraints
from nasmw.nn import ModelSpace
from nasmw.oneshot.data import Data, moved
from nasmw.oneshot.norms import recalibrate
from nasmw.oneshot.recipe import Recipe
from nasmw.oneshot.training import Hook, Training
from nasmw.profiler import Profiler
from nasmw.trial import Trial

__all__ = ["SupernetEvaluator", "check_data", "check_recipe", "check_supernet", "digest_of", "term_text"]


class SupernetEvaluator(Evaluator):
    """Trains one supernet before the first trial, and scores each network by the weights that it inherits.

    Every step of training draws paths through the supernet, uniformly within the limits, and trains the weights that
    lie on them. A trial then takes no training: its network gets a copy of its weights, its batch normalisations get
    the statistics of its own activations, and its metric on the validation data is the score. With
    `nasmw.strategies.Random` or `Evolution` this is single-path one-shot search, with `PolicyGradient` a search in the
    manner of ENAS with weights that are trained beforehand.

    A run with a log keeps the state of the training after each epoch in a file beside it, and the file's digest in the
    log; a run that is gone on with trains from there.

    Args:
        space: The supernet; the search runs on the same space. A fresh copy of it is trained.
        data: The examples for training and validation.
        recipe: How the weights are trained, and what the metric is.
        within: Limits that training paths keep. None: those that the chain keeps, that is, which a `Filter` offered and
            the strategy promised to keep; ``()`` for none.
        paths: How many paths are drawn for each step.
        by_choice: Whether every choice is drawn uniformly, given the limits, as single-path one-shot search has it;
            else every network is as likely as any other, and layers with many choices of their own are seldom skipped.
            Where no choice depends on another one, both are the same.
        sandwich: A profiler with a `CostTable`, such as a `FlopsProfiler`: every step trains the largest and the
            smallest network by it besides, among those within the limits. None: only paths that are drawn.
        distill: Whether all networks but the largest learn what the largest says, softened by nothing, instead of the
            targets; needs `sandwich`, and outputs that are scores of classes.
        calibration: How many batches for training the statistics of batch normalisation are taken from.
        hooks: Called as the training goes on.

    Raises:
        SpaceError: If `space` is no `ModelSpace`.
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range, or there is `distill` without `sandwich`.
        ProfilerError: If `sandwich` has no `CostTable`.

    References: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020. Pham et
    al., Efficient Neural Architecture Search via Parameter Sharing, ICML 2018, where controller and weights are trained
    by turns. Sandwich rule and distillation: Yu et al., BigNAS: Scaling up Neural Architecture Search with Big
    Single-Stage Models, ECCV 2020, section 3.1.
    """

    def __init__(
        self,
        space: ModelSpace,
        data: Data,
        recipe: Recipe | None = None,
        *,
        within: Iterable[Constraint | Constraints] | None = None,
        paths: int = 1,
        by_choice: bool = True,
        sandwich: Profiler | None = None,
        distill: bool = False,
        calibration: int = 20,
        hooks: Sequence[Hook] = (),
    ) -> None:
        name = "SupernetEvaluator"
        self.space = check_supernet(name, space)
        self.data = check_data(name, data)
        self.recipe = check_recipe(name, recipe)
        self.within = None if within is None else as_constraints(space, _terms(within))
        self.paths = _whole("paths", paths, least=1 if sandwich is None else 0)
        self.by_choice = bool(by_choice)
        self.calibration = _whole("calibration", calibration, least=0)
        if sandwich is not None and not isinstance(sandwich, Profiler):
            raise TypeError(f"{name}(sandwich=...) takes a profiler, by which networks are large, got {sandwich!r}")
        if sandwich is not None and not isinstance(sandwich.table, CostTable):
            raise ProfilerError(
                f"{name}(sandwich=...) takes a profiler with a CostTable, by which the largest network is known; "
                f"{sandwich!r} has none"
            )
        if distill and sandwich is None:
            raise ValueError(
                f"{name}(distill=True) has the largest network teach the others; say by which profiler it is the "
                "largest, as in sandwich=macs"
            )
        self.sandwich = sandwich
        self.distill = bool(distill)
        self._hooks = tuple(hooks)
        self.history: list[dict[str, Any]] = []
        self._supernet: ModelSpace | None = None
        self._file: str | None = None

    def __repr__(self) -> str:
        sandwich = self.sandwich.name if self.sandwich is not None else None
        return (
            f"SupernetEvaluator({self.space!r}, {self.data!r}, {self.recipe!r}, paths={self.paths}, by_choice="
            f"{self.by_choice}, sandwich={sandwich!r}, distill={self.distill}, calibration={self.calibration})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Workers read the weights from the file, where there is one.
        return {**self.__dict__, "_hooks": (), "_supernet": None if self._file else self._supernet}

    # -- training -----------------------------------------------------------------------------------------------

    def prepare(self, context: Context) -> None:
        """Train the supernet, from where an earlier process was; a Search calls it.

        Args:
            context: The run; for a supernet outside of any search ``Context(space, seed=0)`` will do.

        Raises:
            SpaceError: If the run is on another space.
            ConstraintError: If no network is within the limits.
            LogMismatchError: If the log holds trials that another supernet scored.
        """
        if context.space.fingerprint != self.space.fingerprint:
            raise SpaceError(f"the supernet is {self.space!r}, and the search is on {context.space!r}")
        limits = context.limits if self.within is None else self.within
        identity = f"{self.paths} {self.by_choice} {self.distill} {' '.join(map(term_text, limits))}"
        if self.sandwich is not None:
            identity += f" {digest_of(self.sandwich.table)}"
        training = Training(
            context, self.space, self.data, self.recipe, name="supernet", identity=identity, hooks=self._hooks
        )
        if context.begun and training.files.foreign:
            raise LogMismatchError(
                "the log holds trials that were scored by a supernet which was trained in another way: by another "
                "recipe, on other data, or within other limits. Undo the change, log to another file, or pass "
                "resume='warm' to keep the trials and go on with this supernet"
            )
        feasible = FeasibleSet.shared(self.space, limits)
        bread = self._bread(feasible)

        def epoch() -> Mapping[str, Any]:
            n = self.data.steps("train")
            drawn = iter(feasible.sample(n * self.paths, training.rng, by_choice=self.by_choice))
            total = 0.0
            for batch in training.batches("train"):
                loss = self._step(training, batch, [*bread, *(next(drawn) for _ in range(self.paths))])
                training.update(loss)
                total += loss
            return {"loss": total / n}

        training.run(epoch)
        self.history = training.history
        self._supernet = training.supernet.cpu()
        self._file = None if training.files.path is None else str(training.files.path.absolute())

    def _bread(self, feasible: FeasibleSet) -> list[Architecture]:
        """Return the largest and the smallest network, where every step is to train them."""
        if self.sandwich is None:
            return []
        return [feasible.maximum(self.sandwich).architecture, feasible.minimum(self.sandwich).architecture]

    def _step(self, training: Training, batch: tuple[Any, Any], paths: Sequence[Architecture]) -> float:
        """Add up the gradients of several paths; return the mean of their losses."""
        inputs, targets = batch
        taught: Tensor | None = None
        total = 0.0
        for architecture in paths:
            with training.supernet.activate(architecture), training.autocast():
                outputs = training.supernet(inputs)
                loss = self.recipe.loss(outputs, targets) if taught is None else F.cross_entropy(outputs, taught)
            training.backward(loss / len(paths))
            total += float(loss.detach())
            if self.distill and taught is None:
                taught = outputs.detach().float().softmax(dim=1)
        return total / len(paths)

    # -- scoring ------------------------------------------------------------------------------------------------

    @property
    def supernet(self) -> ModelSpace:
        """The supernet with the weights that were trained.

        Raises:
            OrderError: Before `prepare`.
        """
        if self._supernet is None and self._file is not None and Path(self._file).is_file():
            state = torch.load(self._file, map_location="cpu", weights_only=True)
            self.space.load_state_dict(state["supernet"])
            self._supernet = self.space
        if self._supernet is None:
            raise OrderError("SupernetEvaluator has no weights yet: a Search trains it, or prepare(Context(space))")
        return self._supernet

    def inherited(self, architecture: Architecture, device: str | None = None) -> nn.Module:
        """Return a network with the weights of the supernet, ready for evaluation.

        Args:
            architecture: The architecture.
            device: Where it is to be; the recipe's by default.
        """
        where = torch.device(device or self.recipe.device or "cpu")
        model = self.supernet.build(architecture, weights=True).to(where)
        recalibrate(model, self._for_calibration(), where)
        return model

    def _for_calibration(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)  # one order for all networks
        for _, (inputs, _) in zip(range(self.calibration), self.data.batches("train", generator), strict=False):
            yield inputs

    def score(self, architecture: Architecture, device: str | None = None) -> float:
        """Return the metric of a network with weights that it inherits, on the validation data."""
        return evaluated(self.inherited(architecture, device), self.data, self.recipe, device)

    def __call__(self, trial: Trial) -> float:
        """Return the score of a trial's architecture."""
        return self.score(trial.architecture, trial.device)


def evaluated(model: nn.Module, data: Data, recipe: Recipe, device: str | None = None) -> float:
    """Return the mean metric of a network on the validation data.

    Args:
        model: The network, on the device, in evaluation mode.
        data: The examples.
        recipe: What the metric is.
        device: Where the network is; the recipe's device by default.
    """
    where = torch.device(device or recipe.device or "cpu")
    total, n = 0.0, 0
    with torch.inference_mode():
        for inputs, targets in data.batches("validation"):
            values = recipe.metric(model(moved(inputs, where)), moved(targets, where))
            total += float(values.sum())
            n += len(values)
    return total / n if n else math.nan


def check_supernet(stage: str, space: object) -> ModelSpace:
    """Return a space that is a supernet.

    Raises:
        SpaceError: If it is none; says what to do.
    """
    if not isinstance(space, ModelSpace):
        raise SpaceError(
            f"{stage} trains the weights of a supernet, and {space!r} has no modules: write the space as a class that "
            "derives from nasmw.nn.ModelSpace, or search it with a strategy that learns from trials, such as Evolution"
        )
    return space


def check_data(stage: str, data: object) -> Data:
    """Return data that give batches.

    Raises:
        TypeError: If they do not.
    """
    if not isinstance(data, Data):
        raise TypeError(
            f"{stage} takes data that give batches for training and validation, such as "
            f"TensorData((inputs, targets), (inputs, targets)); got {type(data).__name__}"
        )
    return data


def check_recipe(stage: str, recipe: object) -> Recipe:
    """Return a recipe; the default one for None.

    Raises:
        TypeError: If it is none.
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TypeError(f"{stage} takes a Recipe, such as Recipe(epochs=20), got {recipe!r}")
    return Recipe() if recipe is None else recipe


def _whole(argument: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"SupernetEvaluator({argument}=...) takes a whole number of at least {least}, got {value!r}")
    return value


def digest_of(table: Any) -> str:
    """Return a text that tells a cost table from another one."""
    checksum = 0
    for scope, entries in table.tables.items():
        checksum = zlib.crc32(repr((scope, entries.shape)).encode(), checksum)
        checksum = zlib.crc32(entries.tobytes(), checksum)
    return f"{table.name}:{table.constant!r}:{checksum:08x}"


def term_text(term: Constraint) -> str:
    """Return a text of a limit that tells it from another one, its table included."""
    table = term.profiler.table
    return f"{term.profiler.name} {term.low!r} {term.high!r} {'' if table is None else digest_of(table)}"


def _terms(within: object) -> Iterable[Any]:
    if isinstance(within, (Constraint, Constraints)):
        return (within,)
    if not isinstance(within, Iterable):
        raise TypeError(f"SupernetEvaluator(within=...) takes limits such as (macs <= 3e5,), got {within!r}")
    return within
