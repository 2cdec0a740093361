"""Probing a space: building networks without data and noting, layer by layer, what their costs are products of."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import nn

from nasmw.candidates import Architecture, Codes
from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput
from nasmw.profilers.shapes import Trace, trace, unfilled
from nasmw.space import Space

__all__ = ["Layer", "Metric", "Naming", "Pool", "Sample", "forget_pools", "layers", "random_build", "shared_pool"]

Metric = Literal["macs", "params", "elements", "activations", "memory", "weight_bits", "bit_operations"]
OF_TENSORS: tuple[Metric, ...] = ("params", "elements")
OF_PASSES: tuple[Metric, ...] = ("macs", "activations", "memory")
Naming = Literal["reads", "paths"]
Groups = tuple[tuple[int, ...], ...]
"""A cost as a sum of products."""


@attrs.frozen
class Layer:
    """What one operator or one tensor of a network costs.

    Attributes:
        made: The number of modules that were constructed before the one that it belongs to; -1 where that is not known.
        path: The path of that module.
        part: What of the module it is: the name of a parameter, or an operator and how often it had run there.
        groups: The cost.
        weights: Of a tensor, whether it is a parameter; of an operator, whether it multiplies by something that is the
            same for all inputs.
    """

    made: int
    path: str
    part: str
    groups: Groups
    weights: bool = True

    @property
    def cost(self) -> int:
        """The cost as a number."""
        return sum(math.prod(group) for group in self.groups)


def _parts(owners: Iterable[tuple[nn.Module, str]]) -> Iterator[str]:
    seen: Counter[tuple[int, str]] = Counter()
    for module, name in owners:
        seen[id(module), name] += 1
        yield f"{name}#{seen[id(module), name]}"


def layers(model: nn.Module, traced: Trace | None, metric: Metric, made: dict[int, int]) -> list[Layer]:
    """Return what the layers of a network cost, all metrics but ``"memory"`` to be summed up, that to be maximised.

    Args:
        model: The network.
        traced: Its forward pass; not needed for the metrics of parameters.
        metric: ``"macs"``; ``"params"``; ``"elements"`` of parameters and buffers; ``"activations"``, the elements
            that operators write; ``"memory"``, the bytes of the tensors that are alive during an operator.
        made: The number of each module in the order of construction, by its identity.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    if metric in ("params", "elements"):
        found = []
        seen: set[int] = set()
        for module in model.modules():
            tensors: list[tuple[str, Any]] = [*module.named_parameters(recurse=False)]
            if metric == "elements":
                tensors += module.named_buffers(recurse=False)
            for name, tensor in tensors:
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    parameter = isinstance(tensor, nn.Parameter)
                    shape = tuple(tensor.shape)
                    found.append(Layer(made.get(id(module), -1), paths[id(module)], name, (shape,), parameter))
        return found
    if traced is None:
        raise ProfilerError(f"metric {metric!r} needs a forward pass")
    costs: list[tuple[nn.Module, str, Groups, bool]] = []
    for operation in traced.operations:
        groups: Groups
        if metric == "macs":
            groups = () if operation.macs is None else (operation.macs,)
        elif metric == "activations":
            groups = operation.written
        else:
            groups = operation.live
        if groups:
            costs.append((operation.module, operation.name, groups, operation.weights))
    parts = _parts((module, name) for module, name, *_ in costs)
    return [
        Layer(made.get(id(module), -1), paths.get(id(module), ""), part, groups, weights)
        for (module, _, groups, weights), part in zip(costs, parts, strict=True)
    ]


class _Reads(dict[str, Any]):
    """An architecture that notes which choices are read, and after how many modules."""

    def __init__(self, architecture: Architecture, watch: _Watch) -> None:
        super().__init__(architecture)
        self._watch = watch

    def _note(self, name: str) -> None:
        if name in self.keys():
            self._watch.reads.append((name, self._watch.number))

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self._note(name)
        return super().pop(name, *default)


class _Watch:
    """Counts modules as they are constructed."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, int]] = []
        self.modules: list[nn.Module] = []

    @property
    def number(self) -> int:
        return len(self.modules)

    @contextmanager
    def watching(self) -> Iterator[None]:
        original = nn.Module.__init__

        def noting(module: nn.Module, *args: Any, **kwargs: Any) -> None:
            self.modules.append(module)
            original(module, *args, **kwargs)

        nn.Module.__init__ = noting  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            nn.Module.__init__ = original  # type: ignore[method-assign]


@attrs.frozen(eq=False)
class Sample:
    """What one network of a space is made of.

    Attributes:
        codes: ``(d,)`` the codes of its architecture.
        reads: The choices that `build` read, by column, each with the number of modules constructed before.
        layers: The layers for each metric.
    """

    codes: Codes
    reads: tuple[tuple[int, int], ...]
    layers: dict[Metric, list[Layer]]

    def value(self, metric: Metric) -> int:
        """Return the metric of the network, counted directly."""
        costs = [layer.cost for layer in self.layers[metric]]
        return max(costs, default=0) if metric == "memory" else sum(costs)

    def times(self, base: Metric, metric: Metric, factors: Callable[[Layer], tuple[int, ...]]) -> Sample:
        """Return the network with a metric whose layers cost what those of another one do, times some factors."""
        weighed = []
        for layer in self.layers[base]:
            more = factors(layer)
            weighed.append(attrs.evolve(layer, groups=tuple((*group, *more) for group in layer.groups)))
        return attrs.evolve(self, layers={metric: weighed})

    def names(self, metric: Metric, naming: Naming, anchors: frozenset[int]) -> Iterator[tuple[Hashable, Groups]]:
        """Yield each layer's name, its form included, and its cost.

        Args:
            metric: The metric.
            naming: ``"reads"`` names a layer by the anchor that was read last before its module was constructed, and
                the modules constructed since; ``"paths"`` by the path of its module.
            anchors: The choices that layers may be named by.
        """
        starts = segments(self.reads, anchors) if naming == "reads" else []
        bounds = np.array([start for _, start in starts])
        for layer in self.layers[metric]:
            form = tuple(map(len, layer.groups))
            if naming == "reads" and layer.made >= 0:
                at = int(np.searchsorted(bounds, layer.made, side="right")) - 1
                column, start = starts[at] if at >= 0 else (-1, 0)
                yield (column, layer.made - start, layer.part, form), layer.groups
            else:
                yield (layer.path, layer.part, form), layer.groups


def segments(reads: Sequence[tuple[int, int]], anchors: frozenset[int]) -> list[tuple[int, int]]:
    """Return the anchors after which modules were constructed, each with the number of modules before."""
    kept = [read for read in reads if read[0] in anchors]
    found = [read for read, following in itertools.pairwise(kept) if following[1] > read[1]]
    merged: list[tuple[int, int]] = []
    for read in [*found, *kept[-1:]]:
        if not merged or merged[-1][0] != read[0]:
            merged.append(read)
    return merged


def find_anchors(samples: Iterable[Sample], columns: int) -> frozenset[int]:
    """Return the choices that `build` reads for one place only: a choice that is read for every block names none."""
    anchors = frozenset(range(columns))
    samples = list(samples)
    while True:
        repeated = {
            column
            for sample in samples
            for column, number in Counter(column for column, _ in segments(sample.reads, anchors)).items()
            if number > 1
        }
        if not repeated:
            return anchors
        anchors -= repeated


class Pool:
    """The networks of a space that were probed so far; each architecture is built once.

    Args:
        space: The space.
        example: What networks are run on; None where parameters alone are wanted.
        resolution: The choice that resizes the example, or None.
        metrics: What is noted; by default all that can be noted of parameters and, with an example, of a pass.
        float_bytes: Bytes of an element of floating point, for ``"memory"``; None takes those of the dtype.

    Attributes:
        uncounted: The operators that nothing is known about.
        observed: The rows of codes that tables were made from, in order, for a later metric to start with.
        rounds: How many rounds of fresh networks tables were compared with; those of a round that is yet to come are
            known to no table.
    """

    def __init__(
        self,
        space: Space,
        example: ExampleInput | None,
        resolution: str | None,
        metrics: Sequence[Metric] = (),
        *,
        float_bytes: int | None = None,
    ) -> None:
        self.space = space
        self.example = example
        self.resolution = resolution
        self.metrics = tuple(metrics) or OF_TENSORS + (OF_PASSES if example is not None else ())
        self.float_bytes = float_bytes
        self.uncounted: set[str] = set()
        self.observed: dict[bytes, Codes] = {}
        self.rounds = 0
        self._empty = True
        self._builds = 0
        self._samples: dict[bytes, Sample] = {}
        self._layers: dict[Layer, Layer] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, codes: Codes) -> Sample:
        """Return what the network of one canonical row of codes, ``(d,)``, is made of."""
        key = codes.tobytes()
        if key not in self._samples:
            self._samples[key] = self.probe(codes)
        return self._samples[key]

    def repeat(self, rows: Iterable[Codes]) -> None:
        """Probe networks a second time.

        Raises:
            ProfilerError: If one is another one then; names it.
        """
        for codes in rows:
            first, again = self.sample(codes), self.probe(codes)
            for metric in self.metrics:
                if [layer.groups for layer in first.layers[metric]] != [layer.groups for layer in again.layers[metric]]:
                    raise ProfilerError(random_build(self.space, codes))

    def probe(self, codes: Codes) -> Sample:
        """Build the network of one row of codes and return what it is made of, without keeping that.

        Raises:
            BuildError: If the space cannot build it.
            ProfilerError: If the network does not run on the example.
        """
        architecture = self.space.decode(codes)
        watch = _Watch()
        model = self._build(architecture, watch)
        made = {id(module): number for number, module in enumerate(watch.modules)}
        traced = None
        if self.example is not None:
            example = self.example.for_architecture(architecture, self.resolution)
            live = "memory" in self.metrics
            try:
                traced = trace(model, example, live=live, float_bytes=self.float_bytes, keep=False)
            except ProfilerError as error:
                raise ProfilerError(f"the network of {architecture!r} cannot be probed: {error}") from error
            self.uncounted |= traced.uncounted
        found = {metric: self._shared(layers(model, traced, metric, made)) for metric in self.metrics}
        reads = tuple((self.space.column(name), number) for name, number in watch.reads)
        return Sample(codes, reads, found)

    def _shared(self, found: list[Layer]) -> list[Layer]:
        """Return layers, each once in memory however many networks have it."""
        return [self._layers.setdefault(layer, layer) for layer in found]

    def _build(self, architecture: Architecture, watch: _Watch) -> nn.Module:
        def seen_as(complete: dict[str, Any]) -> dict[str, Any]:
            watch.reads.clear()
            watch.modules.clear()
            return _Reads(complete, watch)

        with torch.random.fork_rng(devices=[]):
            self._builds += 1
            torch.default_generator.manual_seed(self._builds)  # a `build` that draws shows that it does
            if self._empty:
                try:
                    with unfilled(), watch.watching():
                        return self.space.build(architecture, seen_as=seen_as)
                except Exception:  # a build may need values, of torch.linspace for instance; then it gets them
                    self._empty = False
            with watch.watching():
                return self.space.build(architecture, seen_as=seen_as)


def random_build(space: Space, codes: Codes) -> str:
    """Return the message about a `build` that is random."""
    return (
        f"`build` of {space!r} is random: it gave two different networks for {space.decode(codes)!r}; a network must "
        "follow from its architecture"
    )


class _Pools(dict[Any, Pool]):
    """The pools of a space, which do not travel with it to other processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Pools, ()


def shared_pool(
    space: Space, example: ExampleInput | None, resolution: str | None, *, float_bytes: int | None = None
) -> Pool:
    """Return the pool of all profilers of a space that run its networks on such inputs.

    Without an example a pool with one serves as well, if tables were found from it.
    """
    pools: _Pools = vars(space).setdefault("_pools", _Pools())
    if example is None and (useful := [pool for pool in pools.values() if pool.observed]):
        return useful[0]
    key = (None if example is None else example.describe(), resolution, float_bytes)
    if key not in pools:
        pools[key] = Pool(space, example, resolution, float_bytes=float_bytes)
    return pools[key]


def forget_pools(space: Space) -> None:
    """Forget what was probed of a space."""
    vars(space).pop("_pools", None)
