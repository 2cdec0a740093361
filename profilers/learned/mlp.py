"""MLP: a fully connected network as a predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Features
from nasmw.profilers.learned.predictor import Arrays, LeftOut, Prediction, Predictor, number, whole

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MLP"]

LAYER = "layer/"  # before the names of weights among what is learnt


def _widths(values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, (str, int)):
        raise ProfilerError(f"MLP(widths=...) takes the numbers of hidden units of each layer, got {values!r}")
    return tuple(values)


@attrs.define(eq=False)
class MLP(Predictor):
    """A fully connected network with ReLU; 400-400-400-1 behind the encoding, as in the once-for-all studies.

    It is trained with Adam, a learning rate that falls along a cosine, and the mean squared error. From 50 samples on,
    a first training leaves `held_out` of them out: it gives the loss curves and the residuals for the calibration. The
    network that predicts is then trained on all of them. Every prediction has the same spread. Weights and batches
    are drawn from generators of its own; the global state of torch stays as it is.

    Args:
        widths: The numbers of hidden units.
        epochs: Passes over the samples.
        batch: Samples in a batch.
        learning_rate: The greatest learning rate.
        weight_decay: As for AdamW.
        held_out: The share of samples that the first training leaves out.
        seed: From which weights and batches are drawn.

    References:
        Cai, Gan, Wang, Zhang, Han, Once-for-All, ICLR 2020, section 4.1 (three layers of 400 units). The optimizer is
        another one than in published latency predictors for this space (SGD).
    """

    kind: ClassVar[str] = "mlp"
    minimum: ClassVar[int] = 10
    options: ClassVar[dict[str, tuple[Any, ...]]] = {
        "epochs": (50, 100, 200),
        "batch": (16, 32, 128),
        "learning_rate": (3e-4, 1e-3, 3e-3),
        "weight_decay": (0.0, 1e-4, 1e-2),
    }

    widths: tuple[int, ...] = attrs.field(
        default=(400, 400, 400), converter=_widths, validator=attrs.validators.deep_iterable(whole(1))
    )
    epochs: int = attrs.field(default=100, validator=whole(1))
    batch: int = attrs.field(default=32, validator=whole(1))
    learning_rate: float = attrs.field(default=1e-3, validator=number("a number above 0", lambda x: 0.0 < x < math.inf))
    weight_decay: float = attrs.field(
        default=1e-4, validator=number("a number of at least 0", lambda x: 0.0 <= x < math.inf)
    )
    held_out: float = attrs.field(default=0.1, validator=number("a share above 0 and below 1", lambda x: 0.0 < x < 1.0))
    seed: int = attrs.field(default=0, validator=whole(0))
    _arrays: Arrays = attrs.field(init=False, factory=dict)
    _history: Floats = attrs.field(init=False, factory=lambda: np.zeros((0, 2)))
    _left_out: LeftOut | None = attrs.field(init=False, default=None)
    _network: Any = attrs.field(init=False, default=None)

    @property
    def history(self) -> Floats:
        """Losses after each epoch, ``(epochs, 2)``: on the samples trained on, and on those left out (or NaN)."""
        return self._history

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples."""
        x = features.values
        centre, size = x.mean(axis=0), x.std(axis=0)
        size[size == 0.0] = 1.0
        n = len(values)
        self._left_out = None
        apart = np.random.default_rng(self.seed).permutation(n)[: math.ceil(self.held_out * n)] if n >= 50 else None
        scaled = (x - centre) / size
        if apart is None:
            state, self._history = self._trained(scaled, values, weights, None)
        else:
            rest = np.setdiff1d(np.arange(n), apart)
            first, self._history = self._trained(
                scaled[rest], values[rest], weights[rest], (scaled[apart], values[apart])
            )
            self._arrays = {**first, "centre": centre, "size": size}
            self._network = None
            self._left_out = LeftOut(apart, self.predict(Features(x[apart], features.groups)))
            state, _ = self._trained(scaled, values, weights, None)
        self._arrays = {**state, "centre": centre, "size": size}
        self._network = None

    def _trained(
        self, x: Floats, values: Floats, weights: Floats, apart: tuple[Floats, Floats] | None
    ) -> tuple[Arrays, Floats]:
        """Return the weights of a trained network, and its losses."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        network = self._made(x.shape[1], generator)
        inputs, targets, factors = (_tensor(array) for array in (x, values, weights))
        tests = None if apart is None else (_tensor(apart[0]), _tensor(apart[1]))
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = self.epochs * math.ceil(len(values) / self.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        history = np.full((self.epochs, 2), np.nan)
        for epoch in range(self.epochs):
            total = 0.0
            for rows in torch.randperm(len(values), generator=generator).split(self.batch):
                optimizer.zero_grad(set_to_none=True)
                errors = (network(inputs[rows]).squeeze(1) - targets[rows]) ** 2
                loss = (errors * factors[rows]).mean()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(rows)
            history[epoch, 0] = total / len(values)
            if tests is not None:
                with torch.no_grad():
                    history[epoch, 1] = float(((network(tests[0]).squeeze(1) - tests[1]) ** 2).mean())
        return {f"{LAYER}{name}": tensor.numpy() for name, tensor in network.state_dict().items()}, history

    def _made(self, inputs: int, generator: Any = None) -> nn.Sequential:
        """Return a network, its weights drawn as torch does for linear layers, or not drawn at all."""
        import torch
        from torch import nn

        layers: list[nn.Module] = []
        for outputs in (*self.widths, 1):
            layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
            if generator is not None:
                bound = 1.0 / math.sqrt(inputs)
                with torch.no_grad():
                    layer.weight.uniform_(-bound, bound, generator=generator)
                    layer.bias.uniform_(-bound, bound, generator=generator)
            layers += [layer, nn.ReLU()]
            inputs = outputs
        return nn.Sequential(*layers[:-1])

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        import torch

        if self._network is None:
            network = self._made(len(self._arrays["centre"]))
            layers = {name: array for name, array in self._arrays.items() if name.startswith(LAYER)}
            network.load_state_dict(
                {name[len(LAYER) :]: torch.from_numpy(array.copy()) for name, array in layers.items()}
            )
            self._network = network
        scaled = (features.values - self._arrays["centre"]) / self._arrays["size"]
        with torch.no_grad():
            mean = self._network(_tensor(scaled)).squeeze(1).double().numpy()
        return Prediction(mean, np.ones(len(features)))

    def __getstate__(self) -> dict[str, Any]:
        return {
            field.name: None if field.name == "_network" else getattr(self, field.name)
            for field in attrs.fields(type(self))
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def left_out(self) -> LeftOut | None:
        """Return the samples that the first training left out; None below 50 samples."""
        return self._left_out

    def state(self) -> Arrays:
        """Return the weights of the network, and the losses."""
        return {**self._arrays, "history": self._history}

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._arrays = {name: array for name, array in state.items() if name != "history"}
        self._history = state["history"]
        self._network = None


def _tensor(array: Floats) -> Tensor:
    import torch

    return torch.from_numpy(array.astype(np.float32))
