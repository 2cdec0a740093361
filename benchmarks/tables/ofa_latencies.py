"""once-for-all: published latencies of networks on several devices, as candidates of a space and columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import attrs
import numpy as np
import numpy.typing as npt

from nasmw import Candidates, Space
from nasmw.candidates import Floats
from nasmw.spaces import ofa_mobilenetv3
from tables.files import arrays

__all__ = ["MeasuredNetworks", "help_latencies", "ofa_candidates", "paired_latencies"]

PAIRED = {"note10": "note10", "rtx2080ti": "rtx2080ti", "p40": "teslap40"}
"""The devices of the paired data set, and what their files call them."""


@attrs.frozen(eq=False)
class MeasuredNetworks:
    """Networks of one space and their latencies on devices.

    Attributes:
        candidates: ``n`` networks, in the order of the files, which is that of the measurements.
        milliseconds: By device ``(n,)``.
    """

    candidates: Candidates
    milliseconds: Mapping[str, Floats]


def ofa_candidates(space: Space, file: Mapping[str, npt.NDArray[np.integer]]) -> Candidates:
    """Return the networks of a file as candidates of `nasmw.spaces.ofa_mobilenetv3`.

    Args:
        space: The space.
        file: ``ks`` and ``e``, ``(n, 20)``, kernels and expansions of all blocks, inactive ones included; ``d``,
            ``(n, 5)``, depths; ``r``, ``(n,)``, resolutions.

    Raises:
        ValueError: If an option is none of the space.
    """
    codes = np.zeros((len(file["r"]), len(space)), dtype=space.dtype)
    for column, choice in enumerate(space.choices):
        stage, _, rest = choice.name.partition(".")
        if choice.name == "resolution":
            given = file["r"]
        elif rest == "depth":
            given = file["d"][:, int(stage[5:])]
        else:
            block, _, what = rest.partition(".")
            given = file["ks" if what == "kernel" else "e"][:, 4 * int(stage[5:]) + int(block[5:])]
        options = np.array(choice.options)
        if unknown := sorted(set(np.unique(given).tolist()) - set(choice.options)):
            raise ValueError(f"{choice.name!r} of {space!r} has no option {unknown[0]}")
        codes[:, column] = np.searchsorted(options, given)
    return space.candidates(space.canonical(codes))


def paired_latencies(
    folder: str | os.PathLike[str] | None = None, resolutions: Iterable[int] = range(160, 225, 16)
) -> MeasuredNetworks:
    """Return 10,000 networks with their latencies on a Note10, an RTX 2080 Ti and a P40.

    The space is that of width 1.0, which the two GPUs ran in batches of 64; the latencies of the Note10 are those of
    the same choices at width 1.2, summed from its table.

    Args:
        folder: The data folder; by default what ``NASMW_DATA`` names.
        resolutions: Of the space; more than the five that occur makes it one with that of `help_latencies`.

    Raises:
        MissingDataError: If a file is missing.
    """
    files = {device: arrays(f"ofa/latency_{name}_ofa.npz", folder) for device, name in PAIRED.items()}
    first = files["note10"]
    for device, file in files.items():
        if any(not np.array_equal(file[name], first[name]) for name in ("ks", "e", "d", "r")):
            raise ValueError(f"the networks of {device} are not those of the note10")
    candidates = ofa_candidates(ofa_mobilenetv3(1.0, resolutions), first)
    return MeasuredNetworks(
        candidates, {device: file["latency_ms"].astype(np.float64) for device, file in files.items()}
    )


def help_latencies(folder: str | os.PathLike[str] | None = None) -> MeasuredNetworks:
    """Return the 5,000 networks of HELP with their latencies on four GPUs in batches of 1, 32 and 64.

    Raises:
        MissingDataError: If the file is missing.
    """
    file = arrays("ofa/help_ofa_latency.npz", folder)
    candidates = ofa_candidates(ofa_mobilenetv3(1.0, range(128, 225, 4)), file)
    rows = file["latency_ms"].astype(np.float64)
    return MeasuredNetworks(candidates, {str(name): row for name, row in zip(file["devices"], rows, strict=True)})
