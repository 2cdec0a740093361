"""A Lightning callback that turns what a module logs into the metrics of a trial; needs the extra ``lightning``."""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast

from nasmw.errors import EvaluationError, MissingExtraError, did_you_mean
from nasmw.trial import Trial

__all__ = ["MetricsCallback", "metrics_callback"]

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


class MetricsCallback:
    """Collects what a Lightning module logs; `metrics_callback` makes one that Lightning accepts.

    Args:
        trial: The trial that is evaluated.
        monitor: The name of a logged metric that goes to `Trial.report` after each validation epoch; None for none.
    """

    def __init__(self, trial: Trial, monitor: str | None = None) -> None:
        super().__init__()
        self.trial = trial
        self.monitor = monitor
        self._logged: dict[str, float] = {}

    def metrics(self) -> dict[str, float]:
        """Return the last value of every logged metric, to be returned by `evaluate`.

        Raises:
            EvaluationError: If nothing was logged.
        """
        if not self._logged:
            raise EvaluationError(
                "Lightning logged no metric; call self.log(name, value) in the module's validation_step and run "
                "Trainer.fit with this callback"
            )
        return dict(self._logged)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect the metrics of an epoch of training."""
        self._collect(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect the metrics of a validation, and report the monitored one with the epoch as its step."""
        if trainer.sanity_checking:
            return
        self._collect(trainer)
        if self.monitor is None:
            return
        if self.monitor not in self._logged:
            raise EvaluationError(
                f"Lightning logged no metric {self.monitor!r}{did_you_mean(self.monitor, self._logged)}"
            )
        self.trial.report(trainer.current_epoch, self._logged[self.monitor])

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect the metrics of a test."""
        self._collect(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Collect the metrics of the last epoch."""
        self._collect(trainer)

    def _collect(self, trainer: Any) -> None:
        self._logged.update((name, float(value)) for name, value in trainer.callback_metrics.items())


def metrics_callback(trial: Trial, monitor: str | None = None) -> MetricsCallback:
    """Return a callback for ``Trainer(callbacks=[...])`` whose `metrics()` are what the module logged.

    Works with both packages, ``lightning`` and ``pytorch_lightning``; where both are installed, with the one that the
    program has imported.

    Args:
        trial: The trial that is evaluated.
        monitor: The name of a logged metric that goes to `Trial.report` after each validation epoch, with the epoch
            as its step; None for none.

    Returns:
        A `MetricsCallback` that is a Lightning ``Callback`` as well.

    Raises:
        MissingExtraError: If neither package is installed.
    """
    for package in sorted(PACKAGES, key=lambda name: name not in sys.modules):
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        kind = type("MetricsCallback", (MetricsCallback, module.Callback), {})
        return cast(MetricsCallback, kind(trial, monitor))
    raise MissingExtraError("lightning", "lightning")
