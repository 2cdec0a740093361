"""NnMeterPredictor: what nn-Meter calls a predictor, forests of kinds of kernels and rules of what is fused."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from nasmw.candidates import Floats
from nasmw.errors import MissingExtraError, ProfilerError
from nasmw.profilers.nn_meter_forest import FIELDS, Forest
from nasmw.profilers.nn_meter_kernels import FOLDED, Kernel, kernels_of, to_ir
from nasmw.profilers.nn_meter_package import EXTRA, package_predictor

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NnMeterPredictor"]

FORMAT = "nasmw nn-meter predictor"
VERSION = 1
RULES_FILE = "fusion_rules.json"
UNREADABLE = (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


@attrs.frozen(eq=False, repr=False)
class NnMeterPredictor:
    """Milliseconds of kernels on one device, by random forests, as nn-Meter has them.

    Zhang et al., nn-Meter: Towards Accurate Latency Prediction of Deep-Learning Model Inference on Diverse Edge
    Devices, MobiSys 2021. `load` reads a folder of the package nn-Meter, or a file that `save` wrote;
    `build_nn_meter` makes one by measuring.

    Beyond the package: each kind of kernel may have a factor that was fitted to whole networks, and an inference costs
    `overhead_ms` beyond its kernels. A kernel that there is no forest for is an error, where the package counts 0.

    Attributes:
        forests: For each kind of kernel its forest, by nn-Meter's names, such as ``"conv-bn-relu"``.
        rules: What is fused: nn-Meter's name of each rule, and whether it is obeyed.
        device: What the latencies are about.
        scales: For each kind of kernel what its forest's predictions are multiplied by; 1 where it is not named.
        overhead_ms: What an inference takes beyond its kernels.
        relative_error: The root mean square of relative errors on whole networks; None where it is not known.
        notes: What is known of how it was made, as JSON has it.
    """

    forests: Mapping[str, Forest]
    rules: Mapping[str, Any] = FOLDED
    device: str | None = None
    scales: Mapping[str, float] = attrs.field(factory=dict)
    overhead_ms: float = 0.0
    relative_error: float | None = None
    notes: Mapping[str, Any] = attrs.field(factory=dict)
    _known: dict[Kernel, float] = attrs.field(factory=dict, init=False)

    def __repr__(self) -> str:
        error = "" if self.relative_error is None else f", relative error {self.relative_error:.1%}"
        on = f" on {self.device}" if self.device else ""
        return f"<NnMeterPredictor of {len(self.forests)} kinds of kernels{on}{error}>"

    # -- predictions --------------------------------------------------------------------------------------------

    def kernels(self, model: nn.Module, example: torch.Tensor) -> list[Kernel]:
        """Return the kernels of a network; see `kernels_of`."""
        return kernels_of(model, example, self.rules)

    def latency(self, kernels: Iterable[Kernel]) -> Floats:
        """Return the milliseconds of each kernel, ``(n,)``; each distinct one is predicted once.

        Raises:
            ProfilerError: If there is no forest for a kernel; names all that lack one.
        """
        wanted = list(kernels)
        new = [kernel for kernel in dict.fromkeys(wanted) if kernel not in self._known]
        lacking = {kernel.predictor: kernel.op for kernel in new if kernel.predictor not in self.forests}
        if lacking:
            raise ProfilerError(
                f"{self!r} has no predictor for kernels {', '.join(map(repr, lacking))} "
                f"(as in {', '.join(map(repr, lacking.values()))}); their latency would count as 0. It has "
                f"{', '.join(self.forests)}. Add what is missing to its folder, or build one for the space"
            )
        for name in dict.fromkeys(kernel.predictor for kernel in new):
            mine = [kernel for kernel in new if kernel.predictor == name]
            milliseconds = self.scales.get(name, 1.0) * self.forests[name].predict([list(k.features) for k in mine])
            self._known.update(zip(mine, milliseconds.tolist(), strict=True))
        return np.array([self._known[kernel] for kernel in wanted], dtype=np.float64)

    def predict(self, model: nn.Module, example: torch.Tensor) -> float:
        """Return the milliseconds of a network on an example input.

        Raises:
            ProfilerError: If a part of it is not covered.
        """
        return self.overhead_ms + float(self.latency(self.kernels(model, example)).sum())

    def predict_by_package(self, model: nn.Module, example: torch.Tensor) -> float:
        """Return what nn-Meter itself adds up for a network, from the same forests, factors and rules.

        It is `predict` by another path, for checks: slower, without the overhead, and 0 for what is not covered.
        """
        scaled = {name: forest.scaled(self.scales.get(name, 1.0)) for name, forest in self.forests.items()}
        return float(package_predictor(scaled, self.rules).predict(to_ir(model, example), "nnmeter-ir"))

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor as one npz file of arrays; it holds no pickle and does not depend on scikit-learn."""
        header = {
            "format": FORMAT,
            "version": VERSION,
            "kinds": list(self.forests),
            **{name: getattr(self, name) for name in ("device", "overhead_ms", "relative_error")},
            **{name: dict(getattr(self, name)) for name in ("rules", "scales", "notes")},
        }
        arrays = {
            f"{kind}/{name}": array for kind, forest in self.forests.items() for name, array in forest.arrays().items()
        }
        with open(path, "wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NnMeterPredictor:
        """Return the predictor of a file that `save` wrote, or of a folder of the package nn-Meter.

        Such a folder has ``fusion_rules.json`` and a file like ``conv-bn-relu.pkl`` for each kind of kernel.

        **Loading a folder runs code.** Its files are pickles: whoever wrote them can have anything done here. Load
        only what you trust, and `save` it as a file, which is none. They are forests of scikit-learn, readable by the
        version that wrote them.

        Raises:
            ProfilerError: If there is no such file or folder, a file is missing, or another version of scikit-learn
                wrote one.
            MissingExtraError: If scikit-learn is not installed, for a folder.
        """
        path = Path(path)
        if path.is_dir():
            return cls._of_folder(path)
        if not path.is_file():
            raise ProfilerError(f"there is no predictor {os.fspath(path)!r}: neither a folder nor a file")
        return cls._of_file(path)

    @classmethod
    def _of_file(cls, path: Path) -> NnMeterPredictor:
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays["header"]))
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r}")
            found = int(header["version"])
        except UNREADABLE as error:
            raise ProfilerError(f"{os.fspath(path)!r} is no {FORMAT}: {error}") from error
        if found > VERSION:
            raise ProfilerError(f"{os.fspath(path)!r} has version {found}, this nasmw reads up to {VERSION}")
        named = ("rules", "device", "scales", "overhead_ms", "relative_error", "notes")
        try:
            forests = {
                kind: Forest.from_arrays({name: arrays[f"{kind}/{name}"] for name in FIELDS})
                for kind in header["kinds"]
            }
            return cls(forests, **{name: header[name] for name in named})
        except KeyError as error:
            raise ProfilerError(f"{os.fspath(path)!r} lacks {error}") from error
        except TypeError as error:
            raise ProfilerError(f"{os.fspath(path)!r} is damaged: {error}") from error

    @classmethod
    def _of_folder(cls, folder: Path) -> NnMeterPredictor:
        rules = folder / RULES_FILE
        files = sorted(folder.glob("*.pkl"))
        if not files or not rules.is_file():
            lacks = RULES_FILE if files else "a .pkl file"
            raise ProfilerError(
                f"{os.fspath(folder)!r} is no folder of an nn-Meter predictor: it lacks {lacks}. Such a folder has "
                f"{RULES_FILE} and one file like conv-bn-relu.pkl for each kind of kernel"
            )
        try:
            obeyed = {name: rule["obey"] for name, rule in json.loads(rules.read_text(encoding="utf-8")).items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProfilerError(f"{os.fspath(rules)!r} holds no rules of nn-Meter with 'obey': {error}") from error
        return cls({file.stem: _unpickled(file) for file in files}, obeyed, device=folder.name)


def _unpickled(path: Path) -> Forest:
    """Return the forest of a pickle, if this scikit-learn's version wrote it."""
    try:
        import sklearn
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", EXTRA) from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProfilerError(f"{os.fspath(path)!r} cannot be read: {error}") from error
    wrote = _version_in(content)
    if wrote is not None and _minor(wrote) != _minor(sklearn.__version__):
        raise ProfilerError(
            f"{os.fspath(path)!r} was written by scikit-learn {wrote}, and {sklearn.__version__} is installed, which "
            f"cannot be trusted to read it. Install scikit-learn=={wrote} (in an environment of its own, where it "
            "needs an older Python), or build a predictor anew"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another patch of the same minor version
            return Forest.of(pickle.loads(content), repr(os.fspath(path)))
    except ProfilerError:
        raise
    except Exception as error:
        raise ProfilerError(f"{os.fspath(path)!r} cannot be read: {type(error).__name__}: {error}") from error


def _version_in(content: bytes) -> str | None:
    """Return the version of scikit-learn that wrote a pickle, without running it; None where it does not say."""
    says = False
    try:
        for _, argument, _ in pickletools.genops(content):
            if says and isinstance(argument, str):
                return argument
            says = says or argument == "_sklearn_version"
    except ValueError:
        return None
    return None


def _minor(version: str) -> Sequence[str]:
    return re.split(r"[.+]", version)[:2]
