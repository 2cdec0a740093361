"""once-for-all: the published predictor of accuracy, and the Note10 table of latencies."""

from __future__ import annotations

import os
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from nasmw import Candidates, Space, Trial
from nasmw.candidates import Architecture, Floats
from nasmw.profilers import LookupTableProfiler
from nasmw.spaces import compofa, ofa_mobilenetv3
from tables.files import arrays, path_of

__all__ = ["AccuracyPredictor", "OnceForAll"]

RESOLUTIONS = range(160, 225, 16)
"""What the published search chooses from; the predictor knows images of multiples of 16 only."""
STAGES = 5
BLOCKS = 4
KERNELS = (3, 5, 7)
EXPANDS = (3, 4, 6)
FIXED_KERNELS = (3, 5, 3, 3, 5)
COUPLED_EXPANDS = {2: 3, 3: 4, 4: 6}
SMALLEST = 112
Weights = npt.NDArray[np.float32]


@attrs.frozen(eq=False, repr=False)
class AccuracyPredictor:
    """Predicts the accuracy of networks of once-for-all in percent; the `evaluate` of a `Search`. It can be pickled.

    A network with three hidden layers of 400. What goes in has a one for each kernel and expansion of an active block
    and for the resolution, so that the first layer is a sum over the active choices.

    What it predicts is the accuracy on held-out training images, some five points above that on the validation images.

    Attributes:
        places: For each choice the row of `first` of each option.
        first: ``(options, 400)`` what the options add to the first layer.
        layers: Weights and biases: of the first layer the biases alone.
        offsets: ``(d,)`` where the rows of each choice begin.

    Source: Cai et al., Once-for-All, ICLR 2020, section 4.2 and the tutorial.
    """

    space: Space
    places: dict[str, dict[object, int]]
    first: Weights
    layers: tuple[tuple[Weights, Weights], ...]
    bias: Weights
    offsets: npt.NDArray[np.intp]

    @classmethod
    def load(cls, space: Space, folder: str | os.PathLike[str] | None = None) -> AccuracyPredictor:
        """Read the predictor for a space of `nasmw.spaces.ofa_mobilenetv3` or `nasmw.spaces.compofa`.

        Raises:
            MissingDataError: If the file is missing.
            ValueError: If a resolution of the space is none that the predictor knows.
        """
        file = arrays("ofa/acc_predictor.npz", folder)
        # One-hot kernels of 20 blocks, then expansions, then resolutions.
        ones = file["w0"].T
        kernels, expands, images = np.split(ones, [60, 120])
        places: dict[str, dict[object, int]] = {}
        rows: list[Weights] = []
        for choice in space.choices:
            places[choice.name] = {option: len(rows) + code for code, option in enumerate(choice.options)}
            stage, _, rest = choice.name.partition(".")
            block, _, what = rest.partition(".")
            for option in choice.options:
                row = np.zeros(ones.shape[1], dtype=np.float32)
                if choice.name == "resolution":
                    if (option - SMALLEST) % 16 or not 0 <= (option - SMALLEST) // 16 < len(images):
                        raise ValueError(f"the predictor knows images of 112 to 224 in steps of 16, got {option}")
                    row += images[(option - SMALLEST) // 16]
                elif what:
                    slot = BLOCKS * int(stage[5:]) + int(block[5:])
                    known, given = (kernels, KERNELS) if what == "kernel" else (expands, EXPANDS)
                    row += known[3 * slot + given.index(option)]
                else:  # a depth brings what is no choice of its own in the blocks that it reaches
                    for number in range(option):
                        slot = BLOCKS * int(stage[5:]) + number
                        if f"{stage}.block{number}.kernel" not in space.names:
                            row += kernels[3 * slot + KERNELS.index(FIXED_KERNELS[int(stage[5:])])]
                        if f"{stage}.block{number}.expand" not in space.names:
                            row += expands[3 * slot + EXPANDS.index(COUPLED_EXPANDS[option])]
                rows.append(row)
        sizes = [len(choice.options) for choice in space.choices]
        layers = tuple((np.ascontiguousarray(file[f"w{number}"].T), file[f"b{number}"]) for number in (1, 2, 3))
        return cls(space, places, np.stack(rows), layers, file["b0"], np.cumsum([0, *sizes[:-1]]))

    def _above(self, hidden: Weights) -> Weights:
        for weights, bias in self.layers:
            hidden = np.maximum(hidden, 0.0) @ weights + bias
        return hidden[..., 0] * np.float32(100.0)

    def predict(self, architecture: Architecture) -> float:
        """Return the accuracy of one architecture in percent."""
        rows = [self.places[name][option] for name, option in architecture.items()]
        return float(self._above(self.first[rows].sum(axis=0) + self.bias))

    def predict_batch(self, candidates: Candidates) -> Floats:
        """Return the accuracies of candidates in percent, ``(n,)``."""
        ones = np.zeros((len(candidates), len(self.first)), dtype=np.float32)
        active = self.space.active(candidates.codes)
        row, column = np.nonzero(active)
        ones[row, self.offsets[column] + candidates.codes[row, column]] = 1.0
        return self._above(ones @ self.first + self.bias).astype(np.float64)

    def __call__(self, trial: Trial) -> float:
        """Return the predicted accuracy of a trial in percent."""
        return self.predict(trial.architecture)


class OnceForAll:
    """A space of once-for-all networks of width 1.2 with the predicted accuracy and the latency on a Note10.

    Args:
        networks: ``"all"``, or CompOFA's ``"fixed"`` or ``"elastic"`` ones.
        folder: The data folder; by default what ``NASMW_DATA`` names.

    Attributes:
        space: The space to search; images of 160 to 224 in steps of 16.
        evaluate: The predicted accuracy in percent.
        latency: The latency in milliseconds, exactly the published table.

    Raises:
        MissingDataError: If a file is missing.
    """

    def __init__(
        self,
        networks: Literal["all", "fixed", "elastic"] = "all",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if networks == "all":
            self.space = ofa_mobilenetv3(1.2, RESOLUTIONS)
        else:
            self.space = compofa(networks, 1.2, RESOLUTIONS)
        self.evaluate = AccuracyPredictor.load(self.space, folder)
        self.latency = LookupTableProfiler(self.space, path_of("ofa/note10_lut_raw.json", folder))
