"""NnMeterProfiler: latency as nn-Meter predicts it, kernel by kernel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nasmw.candidates import Architecture, Candidates, Floats
from nasmw.cost import CostTable
from nasmw.errors import ProfilerError
from nasmw.profiler import Bounds, Profiler
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.nn_meter_predictor import NnMeterPredictor
from nasmw.profilers.nn_meter_space import Networks, Parts, parts_of
from nasmw.spaces.family import Part, tabulate

if TYPE_CHECKING:
    from torch import nn

    from nasmw.space import Space

__all__ = ["NnMeterProfiler"]


class NnMeterProfiler(Profiler):
    """Milliseconds that nn-Meter predicts for a network on a device: the sum over its kernels.

    A kernel is what a runtime fuses, such as convolution, batch norm and ReLU; random forests predict each one (Zhang
    et al., nn-Meter, MobiSys 2021). Needs the extra ``nn-meter``. Kernels that no predictor covers, and those that
    nn-Meter mistakes for others (grouped and dilated convolutions, maps that are not square), are errors that name
    them, here where the networks of a described space are looked at, else when such a network is profiled.

    Each distinct kernel is predicted once. Where the space describes its layers and no kernel reaches from one into
    another, which is checked on random networks, the sum is a `table` over the choices: a value is a look-up, bounds
    are exact, and a limit can be met by construction. Otherwise a network is built and taken apart for each
    architecture, which takes a fraction of a second, and there is no table.

    Args:
        space: The space whose architectures are profiled; None where only networks are.
        predictor: A predictor: what `build_nn_meter` returned, or the path of a file or folder for
            `NnMeterPredictor.load`; loading a folder of pickles runs code, load only what you trust.
        example_input: What networks are run on, one image of shape ``(1, channels, size, size)``; None takes the size
            that the space describes.
        name: The name of the metric.
        resolution: The choice that resizes the example, where the space has such a choice; None for none.
        progress: Whether to show a progress bar while layers are taken apart.

    Raises:
        ProfilerError: If a kernel is not covered, the predictor cannot be read, or there is no example input for a
            space that does not describe its layers.
        MissingExtraError: If nn-Meter is not installed.

    Example:
        >>> from nasmw.spaces import proxylessnas
        >>> latency = NnMeterProfiler(proxylessnas(), "cortexA76cpu_tflite21")  # doctest: +SKIP
    """

    table: CostTable | None

    def __init__(
        self,
        space: Space | None,
        predictor: NnMeterPredictor | str | os.PathLike[str],
        example_input: ExampleLike | None = None,
        *,
        name: str = "latency_ms",
        resolution: str | None = "resolution",
        progress: bool = True,
    ) -> None:
        if isinstance(predictor, (str, os.PathLike)):
            predictor = NnMeterPredictor.load(predictor)
        if not isinstance(predictor, NnMeterPredictor):
            raise TypeError(
                f"NnMeterProfiler takes an NnMeterPredictor or the path of one, got {type(predictor).__name__}"
            )
        super().__init__(name, "ms", space=space, kind="learned", device=predictor.device)
        self.predictor = predictor
        self.example_input = None if example_input is None else ExampleInput.of(example_input)
        self.table = None
        self._networks: Networks | None = None
        self._values: dict[bytes, float] = {}
        if space is not None:
            self._networks = Networks.of(space, example_input, resolution)
            parts = parts_of(self._networks, predictor.rules, progress=progress)
            if parts is not None:
                self.table = _tabulated(space, parts, predictor, name)

    @property
    def fixed(self) -> bool:
        """True: nothing that a run finds out changes a prediction."""
        return True

    def _profile(self, architecture: Architecture) -> float:
        if self.table is not None:
            return self.table.value(architecture)
        if self._networks is None:
            raise ProfilerError(f"{self!r} was made without a space; pass one to profile architectures")
        key = self._networks.space.encode(architecture).tobytes()
        if key not in self._values:
            kernels = self._networks.kernels(architecture, self.predictor.rules)
            self._values[key] = self.predictor.overhead_ms + float(self.predictor.latency(kernels).sum())
        return self._values[key]

    def _profile_batch(self, candidates: Candidates) -> Floats | Sequence[float]:
        if self.table is not None:
            return self.table.evaluate(candidates)
        return [self._profile(architecture) for architecture in candidates]

    def _profile_model(self, model: nn.Module) -> float:
        example = None if self.example_input is None else self.example_input.args[:1]
        if not example or not isinstance(example[0], torch.Tensor):
            raise ProfilerError(
                f"{self!r} was made without an example input; pass example_input=torch.zeros(1, 3, 224, 224), for "
                "instance, to profile networks"
            )
        return self.predictor.predict(model, example[0])

    def std(self, candidates: Candidates) -> Floats | None:
        """Return the predictor's relative error on whole networks times each value, ``(n,)``; None where not known."""
        error = self.predictor.relative_error
        return None if error is None else error * self.profile_batch(candidates)

    def bounds(self) -> Bounds | None:
        """Return the least and greatest value over the space, exactly; None where there is no table."""
        return None if self.table is None else self.table.bounds()


def _tabulated(space: Space, parts: Parts, predictor: NnMeterPredictor, name: str) -> CostTable:
    distinct = list(parts.distinct)
    milliseconds = dict(zip(distinct, predictor.latency(distinct).tolist(), strict=True))

    def value(part: Part, *chosen: Any) -> float:
        layers = part.layers(*chosen) if part.layers else ()
        return float(sum(milliseconds[kernel] for placed in layers for kernel in parts.kernels[placed]))

    constant = predictor.overhead_ms + sum(milliseconds[kernel] for kernel in parts.rest)
    described = space.parts() if space.parts else ()
    return CostTable(space, tabulate(space, described, value, np.float64), constant, name=name)
