"""Building an nn-Meter predictor: kernels measured one by one, forests, calibration on whole networks."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nasmw.candidates import Floats
from nasmw.devices.measuring import measure
from nasmw.devices.networks import network_of
from nasmw.devices.weights import sensible_weights
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleLike
from nasmw.profilers.nn_meter_forest import Forest
from nasmw.profilers.nn_meter_kernels import FOLDED, Kernel
from nasmw.profilers.nn_meter_package import package
from nasmw.profilers.nn_meter_predictor import NnMeterPredictor
from nasmw.profilers.nn_meter_space import Networks, parts_of

if TYPE_CHECKING:
    from nasmw.devices.base import Artifact, Device
    from nasmw.space import Space

__all__ = ["build_nn_meter", "kernel_network"]

SETTINGS = "tflite_cpu"
"""Whose settings of forests are taken; for names that nn-Meter does not know it has some that scikit-learn refuses."""
BLOCKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "conv-bn-relu": ("ConvBnRelu", ("HW", "CIN", "COUT", "KERNEL_SIZE", "STRIDES")),
    "dwconv-bn-relu": ("DwConvBnRelu", ("HW", "CIN", "COUT", "KERNEL_SIZE", "STRIDES")),
    "maxpool": ("MaxPoolBlock", ("HW", "CIN", "COUT", "KERNEL_SIZE", "POOL_STRIDES")),
    "avgpool": ("AvgPoolBlock", ("HW", "CIN", "COUT", "KERNEL_SIZE", "POOL_STRIDES")),
    "fc": ("FCBlock", ("CIN", "COUT")),
    **{
        kind: (block, ("HW", "CIN"))
        for kind, block in {
            "global-avgpool": "GlobalAvgPoolBlock",
            "se": "SEBlock",
            "hswish": "HswishBlock",
            "relu": "ReluBlock",
            "bn": "BnBlock",
            "bnrelu": "BnRelu",
            "add": "AddBlock",
            "addrelu": "AddRelu",
            "channelshuffle": "ChannelShuffle",
            "split": "SplitBlock",
        }.items()
    },
}
"""For each kind of kernel nn-Meter's network of one, and what it is told: the first features, in order."""
NOTHING = "nothing"
LEAST_SHARE = 0.05  # of what a kernel took by itself is its own, however long an empty inference takes
LEAST_KERNELS = 3  # of a kind, where there are as many
LEAST_FACTOR = 0.1  # of the common factor: what is in a network takes some time
BONDS = (3.0, 1.0, 0.3, 0.1)
"""How strongly factors may be drawn to a common one; the strongest is taken that errs little more than the best."""
LITTLE_MORE = 1.05


def build_nn_meter(
    space: Space,
    device: Device,
    *,
    example_input: ExampleLike | None = None,
    resolution: str | None = "resolution",
    kernels: int = 240,
    networks: int = 24,
    rules: Mapping[str, Any] = FOLDED,
    rounds: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> NnMeterPredictor:
    """Measure kernels and networks of a space on a device, and return a calibrated predictor of nn-Meter's kind.

    Kernels that networks of the space have, and no others, are run one by one as networks of nn-Meter's builder; its
    forests are fitted to what they took beyond an empty inference. Then random networks are measured as wholes, and
    each kind of kernel gets a factor, by non-negative least squares of relative errors that are drawn to a common
    factor: by itself a kernel pays for converting the layout of its input, which networks do once. The error that the
    predictor states is that on networks which were left out of this fit, one by one.

    Args:
        space: The space.
        device: The device, from `nasmw.devices`.
        example_input: What networks are run on, one image; None takes the size that the space describes.
        resolution: The choice that resizes it, where the space has such a choice.
        kernels: How many distinct kernels are measured, at least 3 for each kind; all of them, where there are no more.
        networks: How many whole networks are measured, at least 2 more than there are kinds of kernels.
        rules: What the device fuses; see `kernels_of`.
        rounds: How often each is visited; see `nasmw.devices.measuring`.
        seed: What kernels and networks are drawn from.
        progress: Whether to show progress bars.

    Raises:
        ProfilerError: If networks have what nn-Meter has no kernel for, or a number is too low.
        DeviceError: If the device fails.
        MissingExtraError: If nn-Meter or what the device needs is not installed.

    Example:
        >>> from nasmw import devices, spaces
        >>> from nasmw.profilers import NnMeterProfiler, build_nn_meter
        >>> space = spaces.ofa_mobilenetv3(resolutions=[224])
        >>> predictor = build_nn_meter(space, devices.get("onnxruntime"))  # doctest: +SKIP
        >>> latency = NnMeterProfiler(space, predictor)  # doctest: +SKIP
    """
    rng = np.random.default_rng(seed)
    whole = Networks.of(space, example_input, resolution)
    parts = parts_of(whole, rules, seed=seed, progress=progress)
    architectures = list(space.sample(networks, rng))
    inside = [whole.kernels(architecture, rules) for architecture in architectures]
    distinct = dict.fromkeys(kernel for found in inside for kernel in found) if parts is None else parts.distinct
    chosen = _chosen(list(distinct), kernels, rng)
    kinds = list(dict.fromkeys(kernel.predictor for kernel in chosen))
    if networks < (least := len(kinds) + 2):
        raise ProfilerError(
            f"{networks} networks are too few for {len(kinds)} kinds of kernels; measure {least} or more"
        )
    subjects: dict[str, Artifact] = {NOTHING: device.export(nn.ReLU(), torch.zeros(1, 1, 1, 1))}
    for number, kernel in enumerate(chosen):
        model, example = kernel_network(kernel)
        subjects[f"kernel {number}: {kernel}"] = device.export(sensible_weights(model, example), example)
    for number, architecture in enumerate(architectures):
        model, example = network_of(space, architecture, whole.input(architecture), None)
        subjects[f"network {number}"] = device.export(model, example)
    found = measure(
        {name: {device.name: artifact} for name, artifact in subjects.items()},
        [device],
        rounds=rounds,
        seed=seed,
        progress=progress,
    )
    overhead, *others = np.asarray(found.latency_ms, dtype=np.float64)[0].tolist()
    alone, together = np.array(others[: len(chosen)]), np.array(others[len(chosen) :])
    own = np.maximum(alone - overhead, LEAST_SHARE * alone)
    every = Counter(kernel.predictor for kernel in parts.distinct) if parts else None
    forests, errors = _forests(chosen, own, every)
    raw = NnMeterPredictor(forests, rules, device.name, overhead_ms=overhead)
    notes = {
        "key": device.key,
        "space": repr(space),
        "environment": dict(found.environment),
        "disturbed": float(found.unsettled.mean()),
        "kernels": {kind: sum(kernel.predictor == kind for kernel in chosen) for kind in kinds},
        "kernels_of_space": len(distinct),
        "median_relative_error_of_kernels": errors,
    }
    return calibrated(raw, inside, together, notes)


def kernel_network(kernel: Kernel) -> tuple[nn.Module, torch.Tensor]:
    """Return nn-Meter's network of one kernel, and what it is run on.

    Raises:
        ProfilerError: If nn-Meter's builder has no such network, or one with several inputs.
    """
    if kernel.predictor not in BLOCKS:
        raise ProfilerError(f"kernels of the kind {kernel.predictor!r} cannot be built one by one, such as {kernel}")
    block, names = BLOCKS[kernel.predictor]
    config = dict(zip(names, map(int, kernel.features), strict=False))
    if "HW" in config:
        config["HW"] = kernel.size  # its features say 1 for every global pooling
    with torch.random.fork_rng(devices=[]):
        made = getattr(package().blocks, block)(config)
        model: nn.Module = made.get_model()
    channels = config["CIN"]
    return model, torch.zeros((1, channels, kernel.size, kernel.size) if "HW" in config else (1, channels))


def _chosen(kernels: Sequence[Kernel], budget: int, rng: np.random.Generator) -> list[Kernel]:
    """Return kernels of each kind, in proportion to how many there are, one from each stretch of their features."""
    kinds: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        kinds.setdefault(kernel.predictor, []).append(kernel)
    if budget < (least := LEAST_KERNELS * len(kinds)):
        raise ProfilerError(f"{budget} kernels are too few for {len(kinds)} kinds of them; measure {least} or more")
    chosen: list[Kernel] = []
    left = len(kernels)
    for kind in sorted(kinds, key=lambda kind: len(kinds[kind])):
        mine = sorted(kinds[kind], key=lambda kernel: kernel.features)
        share = max(LEAST_KERNELS, (budget - len(chosen)) * len(mine) // left)
        left -= len(mine)
        stretches = np.array_split(np.arange(len(mine)), min(share, len(mine)))
        chosen += [mine[int(rng.choice(stretch))] for stretch in stretches]
    return chosen


def _forests(
    kernels: Sequence[Kernel], milliseconds: Floats, every: Mapping[str, int] | None
) -> tuple[dict[str, Forest], dict[str, float | None]]:
    """Return a forest for each kind of kernel, and the median of its relative errors on kernels left out of trees.

    `every` is how many kernels of each kind there are, None where that is not known. Of a kind of which all were
    measured, each tree sees all of them: it has nothing to interpolate, and no such error.
    """
    forests: dict[str, Forest] = {}
    errors: dict[str, float | None] = {}
    for kind in dict.fromkeys(kernel.predictor for kernel in kernels):
        mine = [number for number, kernel in enumerate(kernels) if kernel.predictor == kind]
        fitted = package().new_forest(kind, SETTINGS)
        sampled = every is None or len(mine) < every[kind]
        fitted.set_params(bootstrap=sampled, oob_score=sampled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # with few kernels, some are in every tree
            fitted.fit([kernels[number].features for number in mine], milliseconds[mine])
        forests[kind] = Forest.of(fitted)
        left_out = np.abs(fitted.oob_prediction_ / milliseconds[mine] - 1.0) if sampled else np.array([])
        errors[kind] = float(np.median(left_out)) if sampled else None
    return forests, errors


def calibrated(
    predictor: NnMeterPredictor,
    networks: Sequence[Sequence[Kernel]],
    milliseconds: Floats,
    notes: Mapping[str, Any] | None = None,
) -> NnMeterPredictor:
    """Return a predictor whose kinds of kernels have factors that fit measured networks, and which states its error.

    Args:
        predictor: A predictor, with its overhead.
        networks: The kernels of each network.
        milliseconds: What each took, ``(n,)``.
        notes: What else to note.
    """
    kinds = list(predictor.forests)
    shares = np.zeros((len(networks), len(kinds)))
    for row, kernels in zip(shares, networks, strict=True):
        for kernel, value in zip(kernels, predictor.latency(kernels), strict=True):
            row[kinds.index(kernel.predictor)] += value
    target = np.maximum(milliseconds - predictor.overhead_ms, LEAST_SHARE * milliseconds)
    errors = {bond: _left_out(shares, target, bond) / milliseconds for bond in BONDS}
    squares = {bond: float(np.mean(error**2)) for bond, error in errors.items()}
    bond = next(bond for bond in BONDS if squares[bond] <= LITTLE_MORE**2 * min(squares.values()))
    relative = errors[bond]
    factors = _factors(shares, target, bond)
    raw = (predictor.overhead_ms + shares.sum(axis=1)) / milliseconds - 1.0
    about = {
        "networks": len(networks),
        "bond": bond,
        "mean_absolute_relative_error": float(np.abs(relative).mean()),
        "mean_absolute_relative_error_uncalibrated": float(np.abs(raw).mean()),
    }
    return NnMeterPredictor(
        {kind: predictor.forests[kind] for kind in kinds},
        predictor.rules,
        predictor.device,
        scales=dict(zip(kinds, factors.tolist(), strict=True)),
        overhead_ms=predictor.overhead_ms,
        relative_error=float(np.sqrt(np.mean(relative**2))),
        notes={**(notes or {}), **about},
    )


def _left_out(shares: Floats, target: Floats, bond: float) -> Floats:
    """Return by how much each network is predicted wrong by factors that were fitted to the others, ``(n,)``."""
    errors = np.empty(len(target))
    for number in range(len(target)):
        others = np.arange(len(target)) != number
        errors[number] = shares[number] @ _factors(shares[others], target[others], bond) - target[number]
    return errors


def _factors(shares: Floats, target: Floats, bond: float) -> Floats:
    """Return the factors of the kinds of kernels, ``(kinds,)``, that fit networks with small relative errors.

    Args:
        shares: What each kind of kernel is predicted to take in each network, ``(n, kinds)``.
        target: What each network took beyond the overhead, ``(n,)``.
        bond: The weight of a factor's relative distance from the one that fits all kinds alike, beside that of an
            error.
    """
    from scipy.optimize import nnls

    common = float(np.median(target / shares.sum(axis=1)))
    prior = bond * np.eye(shares.shape[1])
    rows = np.concatenate([common * shares / target[:, None], prior])
    wanted = np.concatenate([np.ones(len(target)), prior.sum(axis=1)])
    found: Floats = common * (LEAST_FACTOR + nnls(rows, wanted - LEAST_FACTOR * rows.sum(axis=1))[0])
    return found
