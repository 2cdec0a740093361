"""LayerCounts, PlacedCounts and LayerWork: encodings of a network's layers, and of the work that they are."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Encoding, Term, space_of
from nasmw.space import Space

if TYPE_CHECKING:
    from nasmw.spaces.family import Part
    from nasmw.spaces.layers import Conv, Placed, Size

__all__ = ["LayerCounts", "LayerWork", "Operation", "PlacedCounts", "needed_parts", "operations", "parts_of"]


@attrs.frozen
class Operation:
    """What a layer asks of a device, for one input.

    Attributes:
        kind: Such as ``"pointwise"``, ``"depthwise3"``, ``"conv3"``, ``"linear"``; for a layer that is not taken apart
            the name of its class.
        macs: Multiply-adds.
        weights: Elements of the parameters, which are read.
        elements: Elements of feature maps that are read and written.
    """

    kind: str
    macs: int
    weights: int
    elements: int = 0


def operations(placed: Placed) -> Iterator[Operation]:
    """Yield the operations of a layer where it is.

    Convolutions and linear layers are one each; inverted residual blocks are taken apart into their convolutions, with
    ``"squeeze"`` for the two of squeeze-and-excite and for scaling by them, and ``"add"`` for the shortcut.
    """
    from nasmw.spaces.layers import Conv, GlobalPool, InvertedResidual, Linear, strided

    layer, at = placed.layer, placed.at
    if isinstance(layer, Conv) and not isinstance(at, int):
        yield _convolution(layer, at)
    elif isinstance(layer, Linear) and isinstance(at, int):
        cost = layer.cost(at)
        yield Operation("linear", cost.macs, cost.params, at * (layer.inputs + layer.outputs))
    elif isinstance(layer, GlobalPool) and not isinstance(at, int):
        yield Operation("pool", 0, 0, layer.channels * (at[0] * at[1] + 1))
    elif isinstance(layer, InvertedResidual) and not isinstance(at, int):
        small = strided(at, layer.stride)
        if layer.expand:
            yield _convolution(layer.expansion, at)
        yield _convolution(layer.depthwise, at)
        if layer.squeeze:
            gates = [conv.cost((1, 1)) for conv in layer.gates]
            scaled = 3 * layer.hidden * small[0] * small[1]  # read for the means, then read and written
            yield Operation("squeeze", sum(gate.macs for gate in gates), sum(gate.params for gate in gates), scaled)
        yield _convolution(layer.projection, small)
        if layer.shortcut:
            yield Operation("add", 0, 0, 3 * layer.outputs * small[0] * small[1])
    else:
        cost = placed.cost()
        yield Operation(type(layer).__name__, cost.macs, cost.params)


def _convolution(conv: Conv, size: Size) -> Operation:
    from nasmw.spaces.layers import strided

    cost = conv.cost(size)
    height, width = strided(size, conv.stride)
    if conv.groups == conv.inputs > 1:
        kind = f"depthwise{conv.kernel}"
    else:
        kind = f"conv{conv.kernel}" if conv.kernel > 1 else "pointwise"
    return Operation(kind, cost.macs, cost.params, conv.inputs * size[0] * size[1] + conv.outputs * height * width)


def parts_of(space: Space) -> list[Part]:
    """Return the parts of a space's networks; none where it does not say of which layers each of them consists."""
    parts: list[Part] = [] if space.parts is None else list(space.parts())
    return parts if all(part.layers is not None for part in parts) else []


def needed_parts(space: Space, encoding: str, other: str) -> list[Part]:
    """Return the parts of a space's networks for an encoding that cannot do without.

    Raises:
        ProfilerError: If there are none; names another encoding to take.
    """
    parts = parts_of(space)
    if not parts:
        raise ProfilerError(
            f"the encoding {encoding!r} needs a space that describes its layers, and {space!r} does not; take "
            f"{other!r}, or make the space with `parts`"
        )
    return parts


@attrs.frozen(eq=False)
class _Plan:
    """The columns, what they are divided by, and of each part of a network its choices, its columns and its values."""

    names: tuple[str, ...]
    scale: Floats
    parts: tuple[tuple[tuple[int, ...], npt.NDArray[np.intp], Floats], ...]


class _OfLayers(Encoding):
    """A sum over the layers of a network, as the space describes them; each column divided by its greatest value.

    Attributes:
        text: The name.
        whole: Whether the greatest value is that of whole networks; else that of one part of them.
    """

    text: ClassVar[str]
    whole: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.text

    @abstractmethod
    def _values(self, placed: Placed) -> Mapping[str, float]:
        """Return what a layer adds to columns, by their names."""

    def _prepare(self, space: Space) -> _Plan:
        parts = needed_parts(space, str(self), "slots")
        columns: dict[str, int] = {}
        found = []
        known: dict[Placed, Mapping[str, float]] = {}
        for part in parts:
            scope = tuple(space.column(name) for name in part.scope)
            options = [space.choices[column].options for column in scope]
            rows: list[Counter[int]] = []
            for chosen in itertools.product(*options):
                row: Counter[int] = Counter()
                for placed in part.layers(*chosen) if part.layers else ():
                    if placed not in known:
                        known[placed] = self._values(placed)
                    for name, value in known[placed].items():
                        row[columns.setdefault(name, len(columns))] += value  # type: ignore[assignment]
                rows.append(row)
            own = np.array(sorted(set().union(*rows)), dtype=np.intp)
            values = np.array([[row[column] for column in own] for row in rows], dtype=np.float64)
            found.append((scope, own, values.reshape(*map(len, options), len(own))))
        scale = np.zeros(len(columns))
        for scope, own, values in found:
            most = values.max(axis=tuple(range(len(scope))))
            scale[own] = scale[own] + most if self.whole else np.maximum(scale[own], most)
        scale[scale == 0.0] = 1.0
        return _Plan(tuple(columns), scale, tuple((scope, own, values / scale[own]) for scope, own, values in found))

    def _encode(self, plan: _Plan, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        features = np.zeros((len(candidates), len(plan.names)))
        for scope, own, values in plan.parts:
            features[:, own] += values[tuple(candidates.codes[:, column] for column in scope)]
        return features

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        plan: _Plan = self.plan(space)
        return plan.names

    def terms(self, space: Space, weights: Floats) -> list[Term]:
        """Return one term for each part of the networks."""
        plan: _Plan = self.plan(space)
        return [
            (tuple(space.choices[column].name for column in scope), np.asarray(values @ weights[own]))
            for scope, own, values in plan.parts
        ]


class LayerCounts(_OfLayers):
    """How often a network has each layer, and on how many pixels: layers with the same attributes count together.

    Blocks of a stage that agree in channels, kernel and expansion cost the same, so a predictor that is told so needs
    fewer samples. There are two columns for each layer: its number, and the area of the feature maps that it is applied
    to (tokens, for what is applied to tokens). For spaces that describe their layers.

    Example:
        >>> from nasmw.spaces import compofa
        >>> space = compofa(resolutions=[224])
        >>> len(LayerCounts().names(space))
        72
    """

    text = "layers"

    def _values(self, placed: Placed) -> Mapping[str, float]:
        name, _, _ = placed.key.partition(" on ")
        area = placed.at if isinstance(placed.at, int) else placed.at[0] * placed.at[1]
        return {name: 1.0, f"{name} area": float(area)}


class PlacedCounts(_OfLayers):
    """How often a network has each layer on each size of images: a linear predictor learns a lookup table from it.

    For spaces that describe their layers.

    Example:
        >>> from nasmw.spaces import compofa
        >>> len(PlacedCounts().names(compofa(resolutions=[192, 224])))
        72
    """

    text = "placed"

    def _values(self, placed: Placed) -> Mapping[str, float]:
        return {placed.image_key: 1.0}


class LayerWork(_OfLayers):
    """The work that a network is: multiply-adds, elements read and written, weights and number of its operations.

    Columns are the totals, then multiply-adds and elements by kinds of operations as `operations` names them (kernels
    together), then elements by kernel. Latencies on most devices are close to a weighted sum of these few columns,
    which makes them fit for few samples and for unknown devices. For spaces that describe their layers.

    Example:
        >>> from nasmw.spaces import compofa
        >>> LayerWork().names(compofa(resolutions=[224]))[:4]
        ('macs', 'elements', 'weights', 'number')
    """

    text = "work"
    whole = True

    def amounts(self, candidates: Candidates) -> Floats:
        """Return the columns in their own units, not divided by anything, ``(n, p)``."""
        plan: _Plan = self.plan(space_of(candidates))
        amounts: Floats = self.encode(candidates).values * plan.scale
        return amounts

    def _values(self, placed: Placed) -> Mapping[str, float]:
        values: Counter[str] = Counter()
        for operation in operations(placed):
            kind = operation.kind.rstrip("0123456789")
            values["macs"] += operation.macs
            values["elements"] += operation.elements
            values["weights"] += operation.weights
            values["number"] += 1
            values[f"{kind} macs"] += operation.macs
            values[f"{kind} elements"] += operation.elements
            if kind != operation.kind:
                values[f"{operation.kind} elements"] += operation.elements
        return values
