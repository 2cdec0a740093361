"""GraphSources: a graph network that has learnt source devices, and makes profilers of new ones."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profilers.learned import files
from nasmw.profilers.learned.base import LearnedProfiler, Transform
from nasmw.profilers.learned.encoding_text import make_encoding
from nasmw.profilers.learned.encodings import Encoding
from nasmw.profilers.learned.graph_network import GraphNetwork, graph_groups
from nasmw.profilers.learned.layers import parts_of
from nasmw.profilers.learned.predictor import as_numbers
from nasmw.space import Space

__all__ = ["GraphSources"]


class GraphSources:
    """What a graph network has learnt of some devices; `on` makes of it a profiler that twenty measurements tune.

    The sources are measurements of architectures of one space, not profilers: the network learns their orders, all
    devices at once. See `GraphNetwork`. It trains for about half a minute on one core, and is tuned in seconds.

    Args:
        space: The space.
        encoding: ``"graph"`` or ``"graph(work)"`` (what each node costs; where the space describes its layers), and
            further encodings behind it, as in ``"graph + arch2vec"``. By default ``"graph(work)"`` where that is
            possible, else ``"graph"``.
        predictor: The network's hyper-parameters.
        given: As for `LearnedProfiler`.

    Attributes:
        devices: The names of the sources that were learnt; empty before.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ProfilerError: If the encoding cannot be made, or has no graph.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(60, np.random.default_rng(0))
        >>> measured = TableProfiler(space).profile_batch(known)
        >>> small = GraphNetwork(width=8, head=8, steps=5, tuning_steps=5)
        >>> sources = GraphSources(space, predictor=small).fit(known, {"phone": measured, "board": 3.0 * measured})
        >>> latency = sources.on("tablet").fit(known[:20], 2.0 * measured[:20])
        >>> latency.device, sources.devices
        ('tablet', ('phone', 'board'))
    """

    def __init__(
        self,
        space: Space,
        encoding: Encoding | str | None = None,
        predictor: GraphNetwork | None = None,
        *,
        given: Mapping[str, Encoding] | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"GraphSources takes a Space first, got {type(space).__name__}")
        if predictor is not None and not isinstance(predictor, GraphNetwork):
            raise TypeError(f"GraphSources takes a GraphNetwork as its predictor, got {predictor!r}")
        self.space = space
        self.encoding = _usual(space) if encoding is None else make_encoding(encoding, given)
        graph_groups(self.encoding.groups(space))
        self.predictor = GraphNetwork() if predictor is None else predictor.fresh()
        self.devices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        learnt = f"{len(self.devices)} devices" if self.devices else "not fitted"
        return f"<GraphSources on {self.space.name!r}, {self.encoding}: {learnt}>"

    def fit(
        self,
        architectures: Candidates | Codes | Iterable[Architecture],
        values: Mapping[str, npt.ArrayLike],
    ) -> GraphSources:
        """Learn the sources, from scratch; return what was called.

        Args:
            architectures: ``n`` of them: candidates, ``(n, d)`` codes, or mappings.
            values: By device ``(n,)`` measurements, in any unit; NaN where there is none.

        Raises:
            SpaceError: If an architecture is not of the space.
            ProfilerError: If candidates are of another space, there is no device, or values do not fit.
        """
        if not isinstance(values, Mapping) or not values:
            raise ProfilerError(f"sources are learnt from values by device, one or more; got {reprlib.repr(values)}")
        candidates = self._candidates(architectures)
        columns: list[Floats] = []
        for device, column in values.items():
            numbers = as_numbers(f"values of {device!r}", column)
            if numbers.shape != (len(candidates),) or np.isinf(numbers).any():
                raise ProfilerError(
                    f"values of {device!r} are one number for each of {len(candidates)} architectures, NaN where there "
                    f"is none; got {numbers.shape}" + (", some infinite" if np.isinf(numbers).any() else "")
                )
            columns.append(numbers)
        predictor = self.predictor.fresh()
        predictor.learn_sources(self.encoding.encode(candidates), np.stack(columns, axis=1), tuple(values))
        self.predictor = predictor
        self.devices = tuple(values)
        return self

    def _candidates(self, architectures: Candidates | Codes | Iterable[Architecture]) -> Candidates:
        if not isinstance(architectures, Candidates):
            return self.space.candidates(architectures)
        if getattr(architectures.space, "fingerprint", "") != self.space.fingerprint:
            raise ProfilerError(f"{self!r} was given candidates of {architectures.space!r}")
        return Candidates.of(self.space, architectures.codes)

    def on(
        self,
        device: str,
        *,
        name: str = "latency_ms",
        unit: str = "ms",
        metric: str | None = None,
        transform: Transform = "none",
    ) -> LearnedProfiler:
        """Return a profiler of a new device, which starts from the sources and is to be fitted to measurements.

        It is saved with what was learnt of the sources, so that a profiler that was loaded learns on in the same way.

        Args:
            device: The new device.
            name: The name of the metric.
            unit: Its unit.
            metric: As for `LearnedProfiler`.
            transform: As for `LearnedProfiler`: ``"log"`` for intervals that are relative.

        Raises:
            OrderError: If the sources were not learnt.
        """
        self._ready()
        return LearnedProfiler(
            self.space,
            self.predictor,
            self.encoding,
            name=name,
            unit=unit,
            device=device,
            metric=metric,
            transform=transform,
        )

    def _ready(self) -> None:
        if not self.devices:
            raise OrderError(f"{self!r} has learnt nothing yet; call fit(architectures, values)")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learnt to a file that holds no pickled objects.

        Raises:
            OrderError: If the sources were not learnt.
        """
        self._ready()
        header = {
            "space": self.space.fingerprint,
            "space_name": self.space.name,
            "graph_encoding": str(self.encoding),
            "encoding_fingerprint": self.encoding.fingerprint(self.space),
            "parameters": self.predictor.parameters,
            "devices": list(self.devices),
            "model": "graph sources",
        }
        files.write(path, header, self.predictor.state())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], space: Space, *, given: Mapping[str, Encoding] | None = None
    ) -> GraphSources:
        """Return the sources that `save` wrote.

        Raises:
            FileNotFoundError: If there is no file.
            ProfilerError: If it is no such file, or about another space or networks of other costs.
        """
        header, arrays = files.read(path, space)
        with files.damaged(path):
            if header.get("model") != "graph sources":
                raise ProfilerError(f"{os.fspath(path)!r} was saved by no GraphSources; use LearnedProfiler.load")
            made = cls(space, header["graph_encoding"], GraphNetwork(**header["parameters"]), given=given)
            if made.encoding.fingerprint(space) != header["encoding_fingerprint"]:
                raise ProfilerError(
                    f"{os.fspath(path)!r} was saved where the encoding {header['graph_encoding']!r} gives other "
                    f"numbers than on {space!r}: other costs, or an encoding learnt on another machine"
                )
            made.predictor.restore(arrays, made.encoding.groups(space))
            made.devices = tuple(header["devices"])
        return made


def _usual(space: Space) -> Encoding:
    return make_encoding("graph(work)" if parts_of(space) else "graph")
