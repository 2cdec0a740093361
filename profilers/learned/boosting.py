"""Boosting: gradient-boosted regression trees by LightGBM."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.errors import MissingExtraError
from nasmw.profilers.learned.encodings import Features
from nasmw.profilers.learned.predictor import Arrays, Prediction, Predictor, number, whole

__all__ = ["Boosting"]


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("lightgbm", "boosting") from error
    return lightgbm


@attrs.define(eq=False)
class Boosting(Predictor):
    """Gradient-boosted regression trees, by LightGBM (the extra ``boosting``), on one thread and reproducible.

    Every prediction has the same spread.

    Args:
        trees: The number of trees.
        learning_rate: How much of each tree is added.
        leaves: The greatest number of leaves of a tree.
        least_samples: The least number of samples in a leaf; fewer where there are few samples.
        penalty: How much squares of the values of leaves cost.
        columns: The share of columns that each tree sees.
        seed: From which columns are drawn.

    Raises:
        MissingExtraError: At the first use, if LightGBM is not installed.

    References:
        Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree, NeurIPS 2017.
    """

    kind: ClassVar[str] = "boosting"
    minimum: ClassVar[int] = 10
    options: ClassVar[dict[str, tuple[Any, ...]]] = {
        "trees": (200, 500, 1000, 2000),
        "learning_rate": (0.02, 0.05, 0.1),
        "leaves": (7, 15, 31, 63),
        "least_samples": (5, 10, 20),
        "penalty": (0.0, 1.0, 10.0),
        "columns": (0.3, 0.6, 1.0),
    }

    trees: int = attrs.field(default=500, validator=whole(1))
    learning_rate: float = attrs.field(default=0.05, validator=number("a number above 0", lambda x: 0.0 < x < math.inf))
    leaves: int = attrs.field(default=15, validator=whole(2))
    least_samples: int = attrs.field(default=10, validator=whole(1))
    penalty: float = attrs.field(default=1.0, validator=number("a number of at least 0", lambda x: 0.0 <= x < math.inf))
    columns: float = attrs.field(
        default=0.6, validator=number("a share above 0 and at most 1", lambda x: 0.0 < x <= 1.0)
    )
    seed: int = attrs.field(default=0, validator=whole(0))
    _text: str = attrs.field(init=False, default="")
    _booster: Any = attrs.field(init=False, default=None)

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples."""
        lightgbm = _lightgbm()
        settings = {
            "objective": "regression",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": max(1, min(self.least_samples, len(values) // 10)),
            "lambda_l2": self.penalty,
            "feature_fraction": self.columns,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(features.values, values, weight=weights, params={"verbosity": -1})
        trained = lightgbm.train(settings, data, num_boost_round=self.trees)
        self._set(trained.model_to_string())

    def _set(self, text: str) -> None:
        """Take a model as LightGBM's text: what is predicted with is what files hold."""
        self._text = text
        self._booster = _lightgbm().Booster(model_str=text)

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        mean = np.asarray(self._booster.predict(features.values, num_threads=1), dtype=np.float64)
        return Prediction(mean, np.ones(len(features)))

    def state(self) -> Arrays:
        """Return LightGBM's text."""
        return {"model": np.frombuffer(self._text.encode(), dtype=np.uint8)}

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._set(state["model"].tobytes().decode())
