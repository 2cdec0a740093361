"""Zero-cost proxies on NAS-Bench-201: how well each ranks cells by test accuracy, and what it costs.

A seeded sample of cells is scored by every proxy, on one mini-batch and one draw of weights; Spearman's rank
correlation with the test accuracy after 200 epochs stands beside that of the proxies' published values on the same
cells, and beside those of parameters and MACs. Seconds are the mean per network, building included; the ensembles'
are those of the proxies that they are made of.

The mini-batch is normal noise of the size of the data set's images with random labels, the same for all cells; with
--images file.npz, whose arrays are `images` (n, 3, h, w) and `labels` (n,), it is the first --batch of those. Published
values were computed on images.

    OMP_NUM_THREADS=1 python benchmarks/zero_cost.py --data folder       (or NASMW_DATA; it holds nb201/)
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from tables import MissingDataError, NASBench201
from tables.files import DATASETS, arrays
from tables.nasbench201 import SIZES

from nasmw import Candidates, Profiler
from nasmw.candidates import Floats
from nasmw.profilers.zero_cost import (
    GradNormProfiler,
    JacovProfiler,
    NaswotProfiler,
    RankEnsembleProfiler,
    SnipProfiler,
    SynflowProfiler,
    ZenProfiler,
)

BASELINES = ("params", "mflops")
PUBLISHED = {
    "naswot": ("naswot_logdet", "monet_naswot", "naswot_v2"),
    "snip": ("snip",),
    "synflow": ("synflow",),
    "zen": ("zen",),
}
OTHERS = ("monet_ntk", "monet_nasi", "epsinas")
ENSEMBLES: Mapping[str, tuple[str, ...]] = {
    "synflow + jacov + snip": ("synflow", "jacov", "snip"),
    "synflow + naswot": ("synflow", "naswot"),
}


def ranks(values: Floats) -> Floats:
    """Return the ranks of values, equal ones sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Floats = (last - (counts - 1) / 2.0)[inverse]
    return found


def spearman(first: Floats, second: Floats) -> float:
    """Return the rank correlation, NaN where one of them never varies."""
    one, other = ranks(first), ranks(second)
    if one.std() == 0.0 or other.std() == 0.0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def interval(first: Floats, second: Floats, draws: int = 400) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the rank correlation over the cells."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        rows = rng.integers(len(first), size=len(first))
        found.append(spearman(first[rows], second[rows]))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def mini_batch(path: str | None, size: int, pixels: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return images and labels: those of a file, or zeros (which profilers replace by noise) and none."""
    if path is None:
        return torch.zeros(size, 3, pixels, pixels), None
    with np.load(path) as file:
        images, labels = file["images"][:size], file["labels"][:size]
    return torch.from_numpy(images).float(), torch.from_numpy(labels).long()


def line(name: str, values: Floats, accuracy: Floats, connected: npt.NDArray[np.bool_], cost: str) -> str:
    """Return a row of the table; values that are no numbers are left out, infinite ones count as the least."""
    known = ~np.isnan(values)
    values, accuracy, connected = values[known], accuracy[known], connected[known]
    low, high = interval(values, accuracy)
    inner = spearman(values[connected], accuracy[connected])
    top = accuracy[np.argsort(-values, kind="stable")[: max(1, len(values) // 20)]].mean()
    return (
        f"{name:<32}{spearman(values, accuracy):>9.3f}{f'{low:.3f} to {high:.3f}':>17}{inner:>11.3f}{top:>9.2f}"
        f"{len(values):>7}{cost:>10}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the data folder; by default what NASMW_DATA names")
    parser.add_argument("--dataset", default="cifar10", choices=DATASETS)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--reference", type=int, default=32, help="cells that ensembles rank among, besides those")
    parser.add_argument("--images", help="an .npz file with real images and labels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        benchmark = NASBench201(given.dataset, given.data)
        published = arrays("nb201/nb201_proxies.npz", given.data)
    except MissingDataError as error:
        sys.exit(f"skipped: {error}")
    rows = np.sort(np.random.default_rng(given.seed).choice(len(benchmark.codes), given.cells, replace=False))
    accuracy = benchmark.columns["test200"][rows].astype(np.float64)
    cells = Candidates.of(benchmark.space, benchmark.codes[rows])
    images, labels = mini_batch(given.images, given.batch, SIZES[DATASETS.index(given.dataset)])
    space, seed = benchmark.space, given.seed
    proxies: Sequence[Profiler] = [
        SynflowProfiler(space, images, seed=seed),
        NaswotProfiler(space, images, seed=seed),
        SnipProfiler(space, images, labels, seed=seed),
        GradNormProfiler(space, images, labels, seed=seed),
        JacovProfiler(space, images, seed=seed),
        ZenProfiler(space, images, seed=seed),
    ]
    connected = np.array([bool(key) for key in space.function_keys(cells)])
    print(
        f"{len(rows)} cells, {given.dataset}, batch of {given.batch} "
        f"{'images' if given.images else 'of seeded noise with random labels'}, seed {seed}; "
        f"{int(len(rows) - connected.sum())} cells join no input to the output\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n"
        "Spearman with the test accuracy, its 95 % bootstrap interval over cells; the same without the cells that join "
        "nothing; mean accuracy of the best 5 %"
    )
    head = f"{'':<32}{'Spearman':>9}{'interval':>17}{'connected':>11}{'best 5 %':>9}{'cells':>7}{'s/network':>10}"
    print(head)
    for name in BASELINES:
        print(line(name, benchmark.columns[name][rows].astype(np.float64), accuracy, connected, ""), flush=True)
    seconds: dict[str, float] = {}
    for proxy in proxies:
        start = time.perf_counter()
        values = proxy.profile_batch(cells)
        seconds[proxy.name] = (time.perf_counter() - start) / len(cells)
        print(line(proxy.name, values, accuracy, connected, f"{seconds[proxy.name]:.3f}"), flush=True)
        for key in PUBLISHED.get(proxy.name, ()):
            other = published.get(f"{key}__{given.dataset}")
            if other is not None:
                print(line(f"  published: {key}", other[rows].astype(np.float64), accuracy, connected, ""))
    named = {proxy.name: proxy for proxy in proxies}
    for name, members in ENSEMBLES.items():
        votes = RankEnsembleProfiler(
            [named[member] for member in members], reference=given.reference, seed=seed, progress=False
        )
        values = votes.profile_batch(cells)
        cost = sum(seconds[member] for member in members)
        print(line(f"ranks of {name}", values, accuracy, connected, f"{cost:.3f}"), flush=True)
    for key in OTHERS:
        other = published.get(f"{key}__{given.dataset}")
        if other is not None:
            print(line(f"  published: {key}", other[rows].astype(np.float64), accuracy, connected, ""))


if __name__ == "__main__":
    main()
