"""GaussianProcess: a sum of learnt kernels, one or two for each group of features."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.profilers.learned.encodings import Features, Group
from nasmw.profilers.learned.predictor import Arrays, LeftOut, Prediction, Predictor, whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GaussianProcess"]

LEAST_NOISE = 1e-6
START = {"linear": 1.0, "curved": 0.3, "length": 1.0, "noise": 0.05}
PRIOR_WIDTH = 2.0  # standard deviation of the prior of each logarithm around its start


@attrs.define(eq=False)
class GaussianProcess(Predictor):
    """A Gaussian process whose kernel is a sum: for each group of features a linear one and a curved one (Matern 5/2).

    A group has one variance for each of its two kernels and one length, however many columns it has; so few numbers are
    learnt, from few samples. They and the noise maximise the marginal likelihood times a log-normal prior, by L-BFGS in
    float64. Features are scaled so that the mean square of a group's distances is 1. Predictions of samples left out
    are exact without further fits.

    Args:
        iterations: Steps of L-BFGS at most.
        learnt_on: With more samples than this, kernels are learnt on so many of them, drawn at random.
        most: With more samples than this, so many of them, drawn at random, are learnt from at all: time grows with the
            third power.
        curved: Whether there are curved kernels; without, it is Bayesian linear regression with a penalty per group.
        seed: From which samples are drawn.

    References:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2, 4.2.1, 5.4.1 and 5.4.2.
    """

    kind: ClassVar[str] = "gp"
    minimum: ClassVar[int] = 4
    options: ClassVar[dict[str, tuple[Any, ...]]] = {"curved": (True, False)}

    iterations: int = attrs.field(default=40, validator=whole(1))
    learnt_on: int = attrs.field(default=500, validator=whole(1))
    most: int = attrs.field(default=3000, validator=whole(1))
    curved: bool = attrs.field(default=True, converter=bool)
    seed: int = attrs.field(default=0, validator=whole(0))
    _arrays: Arrays = attrs.field(init=False, factory=dict)
    _groups: tuple[Group, ...] = attrs.field(init=False, default=())
    _factor: Any = attrs.field(init=False, default=None)
    _left_out: LeftOut | None = attrs.field(init=False, default=None)

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples."""
        order = np.random.default_rng(self.seed).permutation(len(values))
        rows = np.sort(order[: self.most])
        self._groups = features.groups
        x = features.values[rows]
        centre = x.mean(axis=0)
        size = np.ones(x.shape[1])
        for group in self._groups:
            # The mean square of the distances of a group is twice the sum of the variances of its columns.
            size[group.columns] = math.sqrt(2.0 * float(x[:, group.columns].var(axis=0).sum())) or 1.0
        x = (x - centre) / size
        chosen = np.searchsorted(rows, np.sort(order[: min(self.learnt_on, self.most)]))
        logarithms = self._learnt(x[chosen], values[rows][chosen], weights[rows][chosen])
        noise = 1.0 / weights[rows]
        self._arrays = {
            "centre": centre,
            "size": size,
            "samples": x,
            "noise": noise,
            "logarithms": logarithms,
            "answer": np.zeros(len(rows)),
        }
        self._factor = None
        inverse = self._inverse()
        answer = inverse @ values[rows]
        self._arrays["answer"] = answer
        diagonal = np.diagonal(inverse)
        own = math.exp(logarithms[-1]) * (noise - 1.0)  # a new measurement has the weight 1
        spread = np.sqrt(np.maximum(1.0 / diagonal - own, LEAST_NOISE))
        self._left_out = LeftOut(rows, Prediction(values[rows] - answer / diagonal, spread))

    def _start(self) -> Floats:
        """Return the logarithms to start from: linear, curved and length of each group, then the noise."""
        share = 1.0 / len(self._groups)
        own = [math.log(START["linear"] * share), math.log(START["curved"] * share), math.log(START["length"])]
        return np.array([*own * len(self._groups), math.log(START["noise"])])

    def _learnt(self, x: Floats, values: Floats, weights: Floats) -> Floats:
        """Return the logarithms that maximise the marginal likelihood times their prior."""
        import torch

        start = torch.from_numpy(self._start())
        logarithms = start.clone().requires_grad_(True)
        parts = [self._pairs(torch.from_numpy(x[:, group.columns])) for group in self._groups]
        target, noise = torch.from_numpy(values), torch.from_numpy(1.0 / weights)
        optimizer = torch.optim.LBFGS([logarithms], max_iter=self.iterations, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            kernel = self._kernel(parts, logarithms) + torch.diag(noise * (logarithms[-1].exp() + LEAST_NOISE))
            factor, failed = torch.linalg.cholesky_ex(kernel)
            if bool(failed):
                return (logarithms * torch.nan).sum()
            whitened = torch.linalg.solve_triangular(factor, target[:, None], upper=False)
            likelihood = -0.5 * (whitened**2).sum() - factor.diagonal().log().sum()
            prior = -0.5 * (((logarithms - start) / PRIOR_WIDTH) ** 2).sum()
            result: Tensor = -(likelihood + prior)
            result.backward()
            return result

        optimizer.step(loss)
        found = logarithms.detach().numpy().copy()
        return found if np.isfinite(found).all() else self._start()

    def _pairs(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the inner products and the distances of one group's columns."""
        import torch

        other = x if other is None else other
        products = x @ other.T
        squares = (x**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2.0 * products
        return products, torch.sqrt(squares.clamp(min=1e-16))

    def _kernel(self, parts: list[tuple[Tensor, Tensor]], logarithms: Tensor) -> Tensor:
        import torch

        total = torch.zeros_like(parts[0][0])
        for number, (products, distances) in enumerate(parts):
            linear, curved, length = logarithms[3 * number : 3 * number + 3]
            total = total + linear.exp() * products
            if self.curved:
                scaled = distances * (math.sqrt(5.0) / length.exp())
                total = total + curved.exp() * (1.0 + scaled + scaled**2 / 3.0) * torch.exp(-scaled)
        return total

    def _between(self, x: Floats, other: Floats | None = None) -> Floats:
        import torch

        with torch.no_grad():
            parts = []
            for group in self._groups:
                own = torch.from_numpy(x[:, group.columns])
                parts.append(self._pairs(own, None if other is None else torch.from_numpy(other[:, group.columns])))
            result: Floats = self._kernel(parts, torch.from_numpy(self._arrays["logarithms"])).numpy()
        return result

    def _cholesky(self) -> Floats:
        """Return the lower Cholesky factor of the samples' covariance; kept, made anew after a file was read."""
        if self._factor is None:
            kernel = self._between(self._arrays["samples"])
            noise = math.exp(self._arrays["logarithms"][-1]) + LEAST_NOISE
            kernel[np.diag_indices_from(kernel)] += noise * self._arrays["noise"]
            self._factor = np.linalg.cholesky(kernel)
        return self._factor  # type: ignore[no-any-return]

    def _inverse(self) -> Floats:
        import torch

        result: Floats = torch.cholesky_inverse(torch.from_numpy(self._cholesky())).numpy()
        return result

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        import torch

        arrays = self._arrays
        x = (features.values - arrays["centre"]) / arrays["size"]
        between = self._between(x, arrays["samples"])
        factor = torch.from_numpy(self._cholesky())
        whitened = torch.linalg.solve_triangular(factor, torch.from_numpy(between.T.copy()), upper=False).numpy()
        variance = self._own(x) - (whitened**2).sum(axis=0) + math.exp(arrays["logarithms"][-1]) + LEAST_NOISE
        return Prediction((between * arrays["answer"]).sum(axis=1), np.sqrt(np.maximum(variance, LEAST_NOISE)))

    def _own(self, x: Floats) -> Floats:
        """Return the variance of each row before anything is known."""
        total = np.zeros(len(x))
        for number, group in enumerate(self._groups):
            linear, curved = np.exp(self._arrays["logarithms"][3 * number : 3 * number + 2])
            total += linear * (x[:, group.columns] ** 2).sum(axis=1) + (curved if self.curved else 0.0)
        return total

    def left_out(self) -> LeftOut | None:
        """Return the prediction of each sample had it been left out, exactly."""
        return self._left_out

    def __getstate__(self) -> dict[str, Any]:
        return {
            field.name: None if field.name == "_factor" else getattr(self, field.name)
            for field in attrs.fields(type(self))
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def state(self) -> Arrays:
        """Return the samples as they were scaled, the kernels and the weights."""
        return dict(self._arrays)

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._arrays = state
        self._groups = groups
        self._factor = None
