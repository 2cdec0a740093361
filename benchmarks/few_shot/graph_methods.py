"""NASFLAT's graph network as methods of the benchmark, with its switches: what is on, what is off, what it is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs
import numpy as np
import numpy.typing as npt
from tables.files import arrays

from few_shot.methods import METHODS, Known, Method, register
from few_shot.runs import mean_and_error, over_seeds, run
from few_shot.tasks import Task
from nasmw import Candidates, Space
from nasmw.candidates import Floats
from nasmw.profilers.learned import Encoding, Features, Given, GraphNetwork, make_encoding
from nasmw.profilers.learned.samplers import choose_buckets, choose_cosine, choose_kmeans, choose_random

__all__ = ["SAMPLERS", "SUPPLEMENTS", "compare", "proxies"]

Rows = npt.NDArray[np.intp]

SUPPLEMENTS = {
    "none": "",
    "pca": "graph_pca",
    "arch2vec": "arch2vec",
    "cate": "cate",
    "zcp": "zcp",
    "all": "arch2vec + cate + zcp",
}
"""Encodings that reach the network beside the graph, by the names of the ablation."""
SAMPLERS = ("random", "buckets", "kmeans", "cosine")
"""Ways to choose the samples of a target; the last two by the supplementary encoding, or by the PCA without one."""
TUNING_RATES = {"nasbench201": 3e-3, "fbnet": 1e-3}
"""By space, as in the authors' code; benchmarks/results/latency_tasks_graph_choices.txt has what was compared."""
USUAL = "none", "kmeans"
"""Supplement and sampler of methods whose names say nothing of them."""

_KEPT: dict[tuple[str, int, str], Features] = {}
_TRAINED: dict[tuple[str, int, bytes, tuple[str, ...], str], GraphNetwork] = {}


def proxies(space: Space) -> Given:
    """Return zero-cost proxies as an encoding: of each one the rank among all networks that have it, from -1 to 1.

    Those of NAS-Bench-201 are of CIFAR-100. What is not finite has the lowest rank. MACs and parameters are among them,
    as in the published comparison.

    Raises:
        MissingDataError: If a file is missing.
    """
    if space.name == "fbnet":
        told = arrays("latency/fbnet_zcp.npz")
        names, values = told["names"].tolist(), told["zcp"]
        networks = arrays("latency/fbnet_archs.npz")
    else:
        told = {
            name.removesuffix("__cifar100"): numbers
            for name, numbers in arrays("nb201/nb201_proxies.npz").items()
            if name.endswith("__cifar100") and numbers.ndim == 1 and "_time_s" not in name
        }
        costs = arrays("nb201/nb201_cost.npz")
        told |= {"params": costs["params"][:, 1], "macs": costs["mflops"][:, 1]}
        names, values = list(told), np.stack([np.asarray(column, dtype=np.float64) for column in told.values()], axis=1)
        networks = arrays("latency/nb201_archs.npz")
    options = [str(option) for option in space.choices[0].options]
    codes = np.array([options.index(name) for name in networks["op_names"].tolist()], dtype=space.dtype)
    ranks = np.argsort(np.argsort(np.where(np.isfinite(values), values, -np.inf), axis=0, kind="stable"), axis=0)
    return Given("zcp", (codes[networks["ops"]], 2.0 * ranks / (len(ranks) - 1) - 1.0), names)


def _encoding(space: Space, text: str) -> Encoding:
    return make_encoding(text, {"zcp": proxies(space)} if "zcp" in text else None)


def _features(candidates: Candidates, text: str) -> Features:
    """Return an encoding of all networks, made once: what is learnt without latencies is the same in all tasks."""
    space = candidates.space
    assert isinstance(space, Space)
    key = space.fingerprint, len(candidates), text
    if key not in _KEPT:
        _KEPT[key] = _encoding(space, text).encode(candidates)
    return _KEPT[key]


@attrs.frozen(eq=False)
class _Tuned:
    """A network that has learnt the sources (or nothing), and how samples are chosen for it."""

    known: Known
    network: GraphNetwork
    features: Features
    supplement: str
    sampler: str

    def choose(self, allowed: Rows, n: int, rng: np.random.Generator) -> Rows:
        if self.sampler == "random":
            return allowed[choose_random(len(allowed), n, rng)]
        everything = self.known.everything
        if self.sampler == "buckets":
            space = everything.space
            assert isinstance(space, Space)
            params = space.tables["params"](space, None).evaluate(everything[allowed])
            return allowed[choose_buckets(params, n, rng)]
        choosing: Callable[..., Rows] = choose_kmeans if self.sampler == "kmeans" else choose_cosine
        values = _features(everything, SUPPLEMENTS[self.supplement] or SUPPLEMENTS["pca"]).values[allowed]
        return allowed[choosing(values, n, rng)]

    def predict(self, rows: Rows, milliseconds: Floats, rng: np.random.Generator) -> Floats:
        logarithms = np.log(milliseconds)
        middle, size = float(logarithms.mean()), float(logarithms.std()) or 1.0
        network = self.network.fresh(seed=int(rng.integers(2**31)))
        network.fit(self.features[rows], (logarithms - middle) / size, np.ones(len(rows)))
        return np.exp(network.predict(self.features).mean * size + middle)


def _train(
    known: Known, seed: int, *, graph: str, supplement: str, sampler: str, sources: bool, embedding: str
) -> _Tuned:
    text = " + ".join(filter(None, (graph, SUPPLEMENTS[supplement])))
    features = _features(known.everything, text)
    space = known.everything.space
    assert isinstance(space, Space)
    network = GraphNetwork(embedding=embedding, tuning_rate=TUNING_RATES[space.name], seed=seed)  # type: ignore[arg-type]
    if sources:
        # Methods that differ in the sampler alone share a network; its time is in the first one's.
        key = text, seed, known.rows.tobytes(), known.sources, embedding
        if key not in _TRAINED:
            network.learn_sources(features[known.rows], known.milliseconds)
            _TRAINED[key] = network
        network = _TRAINED[key]
    return _Tuned(known, network, features, supplement, sampler)


def _method(
    name: str,
    *,
    costs: bool = False,
    supplement: str = USUAL[0],
    sampler: str = USUAL[1],
    sources: bool = True,
    embedding: str = "operation",
) -> Method:
    train = partial(
        _train,
        graph="graph(work)" if costs else "graph",
        supplement=supplement,
        sampler=sampler,
        sources=sources,
        embedding=embedding,
    )
    return Method(name, costs, train, slow=True)


_ALL = [
    _method("graph"),
    _method("graph+costs", costs=True),
    _method("graph/device-behind", embedding="network"),
    _method("graph/no-device", embedding="none"),
    _method("graph/no-sources", sources=False),
    _method("graph+costs/no-sources", costs=True, sources=False),
    *(
        _method(f"graph/{supplement}/{sampler}", supplement=supplement, sampler=sampler)
        for supplement, sampler in itertools.product(SUPPLEMENTS, SAMPLERS)
        if (supplement, sampler) != USUAL
    ),
]
register(_ALL)


def compare(report: Callable[[str], None], found: Mapping[str, Task], seeds: int, names: Sequence[str] = ()) -> None:
    """Report the switches of the graph network: 20 samples, each method beside the one with everything on.

    Args:
        report: Takes each line.
        found: The tasks by name.
        seeds: How many.
        names: The methods; all of this module by default.
    """
    chosen = list(names) or [method.name for method in _ALL]
    report(f"Graph network, 20 samples, {seeds} seeds: rank correlation, mean over targets and seeds; the mean over")
    report(f"tasks and its difference from {chosen[0]!r}, with the standard error of the difference over seeds; CPU")
    report(
        "seconds to learn the sources of a task, and for each target. Methods that differ in nothing but the sampler"
    )
    report("share what was learnt of the sources.")
    report(f"{'method':26}" + "".join(f"{name:>7}" for name in found) + f"{'mean':>8}{'difference':>17}{'seconds':>16}")
    first: Floats | None = None
    for name in chosen:
        scores = [list(run(task, METHODS[name], [20], range(seeds))) for task in found.values()]
        by_seed = np.stack([over_seeds(own) for own in scores])  # (tasks, seeds)
        first = by_seed.mean(axis=0) if first is None else first
        difference, error = mean_and_error(by_seed.mean(axis=0) - first)
        taken = [float(np.mean([one.train_s for one in own])) for own in scores]
        each = [float(np.mean([one.target_s for one in own])) for own in scores]
        report(
            f"{name:26}"
            + "".join(f"{value:7.3f}" for value in by_seed.mean(axis=1))
            + f"{by_seed.mean():8.3f}{difference:+9.3f} ± {error:.3f}{np.mean(taken):9.1f}{np.mean(each):7.1f}"
        )
