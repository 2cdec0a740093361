"""The Gaussian process over several sources, and simple methods beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import numpy as np

from few_shot.graph_methods import proxies
from few_shot.methods import Known, Method, Rows, Trained, register
from nasmw import Candidates
from nasmw.candidates import Floats
from nasmw.profilers.learned import LayerWork, make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features
from nasmw.profilers.learned.multi_source import MultiSource, MultiSourceEncoding, kernels
from nasmw.profilers.learned.predictor import make_predictor
from nasmw.profilers.learned.samplers import (
    choose_buckets,
    choose_cosine,
    choose_kmeans,
    choose_random,
    choose_variance,
)
from nasmw.profilers.learned.source_devices import SourceDevices
from nasmw.space import Space

__all__ = ["COSTS", "PLAIN", "SAMPLERS", "Preparation", "ablations", "crossed", "gaussian_process", "space_of"]

SUPPLEMENTS = ("", "graph_pca", "arch2vec", "cate", "zcp", "arch2vec + cate + zcp")
"""Encodings that may stand beside; ``"zcp"`` are zero-cost proxies from the data folder."""
POOL = 600
"""Samplers that compare all networks with all look at so many random ones."""
COSTS, PLAIN = "structure + work + one_hot", "structure + one_hot"
"""What the Gaussian process is told of networks: with what they cost, and without."""
Sampler = Callable[[Features, Candidates, MultiSource, int, np.random.Generator], Rows]


def space_of(candidates: Candidates) -> Space:
    """Return the space of candidates that have one."""
    assert isinstance(candidates.space, Space)
    return candidates.space


def by_variance(
    features: Features, networks: Candidates, predictor: MultiSource, n: int, rng: np.random.Generator
) -> Rows:
    variances = predictor.prior(features.groups)
    covariance = np.tensordot(variances[:-1], kernels(features.values, features.values, features.groups), axes=1)
    return choose_variance(covariance, n, float(variances[-1]))


def at_random(
    features: Features, networks: Candidates, predictor: MultiSource, n: int, rng: np.random.Generator
) -> Rows:
    return choose_random(len(networks), n, rng)


def by_cost(features: Features, networks: Candidates, predictor: MultiSource, n: int, rng: np.random.Generator) -> Rows:
    return choose_buckets(LayerWork().amounts(networks)[:, 0], n, rng)


def by_clusters(
    features: Features, networks: Candidates, predictor: MultiSource, n: int, rng: np.random.Generator
) -> Rows:
    return choose_kmeans(features.values, n, rng)


def by_cosine(
    features: Features, networks: Candidates, predictor: MultiSource, n: int, rng: np.random.Generator
) -> Rows:
    return choose_cosine(features.values, n, rng)


SAMPLERS: Mapping[str, Sampler] = {
    "random": at_random,
    "cost buckets": by_cost,
    "k-means": by_clusters,
    "cosine": by_cosine,
    "variance": by_variance,
}


@attrs.frozen(eq=False)
class _GaussianProcess:
    """What `nasmw.profilers.learned.MultiSourceProfiler` does, with the features of all networks made once."""

    everything: Candidates
    features: Features
    model: MultiSource
    sampler: Sampler

    def choose(self, allowed: Rows, n: int, rng: np.random.Generator) -> Rows:
        pool = rng.choice(allowed, min(POOL, len(allowed)), replace=False)
        return pool[self.sampler(self.features[pool], self.everything[pool], self.model, n, rng)]

    def predict(self, rows: Rows, milliseconds: Floats, rng: np.random.Generator) -> Floats:
        target = np.log(milliseconds)
        middle, scale = float(target.mean()), float(target.std())
        predictor = self.model.fresh()
        predictor.fit(self.features[rows], (target - middle) / scale, np.ones(len(rows)))
        return np.exp(predictor.predict(self.features).mean * scale + middle)


class Preparation:
    """Learns sources and encodes networks, once for each encoding; what may be shared by runs on the same sources.

    Args:
        known: What is known.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self._learnt: dict[str, SourceDevices] = {}
        self._features: dict[tuple[str, str], Features] = {}

    def sources(self, encoding: str) -> SourceDevices:
        """Return the sources, learnt from an encoding."""
        if encoding not in self._learnt:
            space = space_of(self.known.everything)
            sources = SourceDevices(space, self.known.sources, encoding)
            self._learnt[encoding] = sources.fit(self.known.measured, self.known.milliseconds)
        return self._learnt[encoding]

    def features(self, encoding: str | Encoding, source_encoding: str) -> Features:
        """Return what the process is told of all networks; an empty `source_encoding` leaves the sources out."""
        key = str(encoding), source_encoding
        if key not in self._features:
            devices = list(self.sources(source_encoding)) if source_encoding else []
            space = space_of(self.known.everything)
            given = {"zcp": proxies(space)} if isinstance(encoding, str) and "zcp" in encoding else None
            whole = MultiSourceEncoding(devices, make_encoding(encoding, given))
            self._features[key] = whole.encode(self.known.everything)
        return self._features[key]


def gaussian_process(
    known: Known,
    seed: int,
    *,
    encoding: str | Encoding = COSTS,
    source_encoding: str = COSTS,
    sampler: str = "variance",
    model: MultiSource | None = None,
    preparation: Preparation | None = None,
) -> Trained:
    """Learn the sources together, and prepare the Gaussian process of the targets.

    Args:
        known: What is known.
        seed: Of the draws.
        encoding: What the process is told of networks.
        source_encoding: What the sources are learnt from; empty to leave the sources out.
        sampler: One of `SAMPLERS`.
        model: The predictor; one with the defaults by default.
        preparation: What was learnt of `known` before, if anything.
    """
    features = (preparation or Preparation(known)).features(encoding, source_encoding)
    return _GaussianProcess(known.everything, features, (model or MultiSource()).fresh(seed=seed), SAMPLERS[sampler])


@attrs.frozen(eq=False)
class _Nearest:
    """The source that orders the measured networks most alike; or a ridge regression on all of them."""

    everything: Candidates
    scores: Floats
    ridge: bool

    def choose(self, allowed: Rows, n: int, rng: np.random.Generator) -> Rows:
        return np.asarray(rng.choice(allowed, n, replace=False))

    def predict(self, rows: Rows, milliseconds: Floats, rng: np.random.Generator) -> Floats:
        if not self.ridge:
            own = np.argsort(np.argsort(milliseconds))
            alike = [np.corrcoef(np.argsort(np.argsort(column)), own)[0, 1] for column in self.scores[rows].T]
            return self.scores[:, int(np.argmax(alike))]
        target = np.log(milliseconds)
        middle, scale = float(target.mean()), float(target.std())
        features = Features(self.scores, ())
        predictor = make_predictor("ridge")
        predictor.fit(features[rows], (target - middle) / scale, np.ones(len(rows)))
        return np.exp(predictor.predict(features).mean * scale + middle)


def on_sources(known: Known, seed: int, *, ridge: bool, source_encoding: str = PLAIN) -> Trained:
    """Learn the sources, of which the nearest or a weighted sum is taken."""
    learnt = Preparation(known).sources(source_encoding)
    values = np.log(np.maximum(learnt.values(known.everything), 1e-3))
    return _Nearest(known.everything, (values - values.mean(axis=0)) / values.std(axis=0), ridge)


register(
    [
        Method("nearest", False, partial(on_sources, ridge=False)),
        Method("ridge", False, partial(on_sources, ridge=True)),
        Method("gp", False, partial(gaussian_process, encoding=PLAIN, source_encoding=PLAIN)),
        Method("gp-costs", True, gaussian_process),
        Method("gp-costs-alone", True, partial(gaussian_process, source_encoding="")),
    ]
)


def ablations() -> dict[str, Method]:
    """Return ``gp-costs``, and the same with one thing changed, by what is changed."""
    changed: dict[str, dict[str, object]] = {
        "gp-costs": {},
        "no sources": {"source_encoding": ""},
        **{f"sampler: {name}": {"sampler": name} for name in SAMPLERS if name != "variance"},
        "encoding: one_hot": {"encoding": "one_hot"},
        "encoding: structure": {"encoding": "structure"},
        "encoding: work": {"encoding": "work"},
        "encoding: structure + one_hot": {"encoding": PLAIN},
        "encoding: and blocks": {"encoding": f"{COSTS} + blocks"},
        "encoding: and layers": {"encoding": f"{COSTS} + layers"},
    }
    return {
        name: Method(name, True, partial(gaussian_process, **arguments))  # type: ignore[arg-type]
        for name, arguments in changed.items()
    }


def crossed() -> dict[str, Method]:
    """Return ``gp`` with each supplementary encoding and each sampler; k-means and cosine look at all columns."""
    found = {}
    for supplement in SUPPLEMENTS:
        encoding = f"{PLAIN} + {supplement}" if supplement else PLAIN
        for sampler in SAMPLERS:
            name = f"{supplement or 'none'}, {sampler}"
            train = partial(gaussian_process, encoding=encoding, source_encoding=PLAIN, sampler=sampler)
            found[name] = Method(name, False, train)
    return found
