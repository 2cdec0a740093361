"""LatencyTable: measured latencies of layers or of choices, as a value and as a file that says its unit."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np

from nasmw.errors import ProfilerError, did_you_mean
from nasmw.profilers.arrays import read_arrays

__all__ = ["ChoiceLatencies", "LatencyTable", "Unit", "check_latency", "milliseconds", "option_key", "read_document"]

FORMAT = "nasmw latency table"
VERSION = 1
Unit = Literal["s", "ms", "us"]
MILLISECONDS: dict[str, float] = {"s": 1e3, "ms": 1.0, "us": 1e-3}
FIELDS = (
    "format",
    "version",
    "unit",
    "device",
    "network",
    "overhead",
    "relative_error",
    "included",
    "layers",
    "choices",
    "notes",
)


def milliseconds(unit: object, what: str) -> float:
    """Return how many milliseconds a unit has.

    Raises:
        ProfilerError: If it is None or no unit of time.
    """
    if unit is None:
        raise ProfilerError(
            f"{what} does not say in which unit its latencies are; look it up where the file comes from and pass "
            f"unit=..., one of {get_args(Unit)}"
        )
    if not isinstance(unit, str) or unit not in MILLISECONDS:
        raise ProfilerError(f"the unit of {what} is one of {get_args(Unit)}, got {unit!r}")
    return MILLISECONDS[unit]


def option_key(options: Sequence[Any]) -> str:
    """Return the text under which a combination of options is found; tuples are lists, as in JSON.

    Raises:
        ProfilerError: If JSON cannot hold an option.
    """
    try:
        return json.dumps(list(options))
    except TypeError:
        raise ProfilerError(
            f"the options {tuple(options)!r} cannot be keys of a table: JSON cannot hold them"
        ) from None


def _field(document: Mapping[str, Any], field: str, kind: type, what: str) -> Any:
    """Return a field of a document, empty where it is missing."""
    value = document.get(field, kind())
    if not isinstance(value, kind):
        raise ProfilerError(f"the field {field!r} of {what} is a {kind.__name__}, got {value!r}")
    return value


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _terms(values: Iterable[ChoiceLatencies]) -> tuple[ChoiceLatencies, ...]:
    return tuple(values)


def _latencies(values: Mapping[str, float]) -> dict[str, float]:
    return {str(key): check_latency(value, str(key)) for key, value in values.items()}


def check_latency(value: object, what: str) -> float:
    """Return a latency as a float.

    Raises:
        ProfilerError: If it is no finite number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) < math.inf:
        raise ProfilerError(f"the latency of {what} must be a finite number of at least 0, got {value!r}")
    return float(value)


@attrs.frozen
class ChoiceLatencies:
    """The latency of what a few choices decide together, for each combination of their options.

    It counts where all of these choices are active.

    Attributes:
        names: The names of the choices.
        latencies: Milliseconds by `option_key` of one option of each.
    """

    names: tuple[str, ...] = attrs.field(converter=_texts)
    latencies: Mapping[str, float] = attrs.field(converter=_latencies)

    @classmethod
    def of(cls, names: Iterable[str], rows: Iterable[Sequence[Any]], scale: float = 1.0) -> ChoiceLatencies:
        """Return the latencies of rows, each one option of each choice and then the latency.

        Raises:
            ProfilerError: If a row has another length, or two have the same options.
        """
        names = tuple(names)
        latencies: dict[str, float] = {}
        for row in rows:
            if not isinstance(row, Sequence) or len(row) != len(names) + 1:
                raise ProfilerError(f"a row of the latencies of {names} is its options and a number, got {row!r}")
            key = option_key(row[:-1])
            if key in latencies:
                raise ProfilerError(f"the latencies of {names} have two rows for {key}")
            latencies[key] = scale * check_latency(row[-1], f"{names} being {key}")
        return cls(names, latencies)


@attrs.frozen
class LatencyTable:
    """Latencies that were measured on a device, in milliseconds, of layers or of choices.

    The latency of a network is the sum over its layers, or over the choices, and the overhead.

    Attributes:
        device: What was measured on, with runtime and threads where they matter.
        layers: Latencies by `Placed.key` (``"Conv(inputs=3, outputs=24, kernel=3) on 160x160"``), or by
            `Placed.image_key` where images of each size were measured apart; the latter goes first.
        choices: Latencies by options of choices instead, for spaces that do not describe their layers. Either these
            or `layers` are given.
        network: What networks the table is about, in words.
        overhead: What every network costs beside its layers.
        relative_error: The root mean square of the relative error on whole networks; None where it is not known.
        included: Kinds of layers, by class name, that have no entries because others include their latency.
        notes: Anything else that JSON can hold: date, protocol, versions.

    Raises:
        ProfilerError: If a latency is no finite number of at least 0, or neither or both kinds of entries are given.
    """

    device: str
    layers: Mapping[str, float] = attrs.field(factory=dict, converter=_latencies)
    choices: tuple[ChoiceLatencies, ...] = attrs.field(default=(), converter=_terms)
    network: str = ""
    overhead: float = 0.0
    relative_error: float | None = None
    included: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    notes: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.device, str) or not self.device:
            raise ProfilerError(f"a table of latencies names its device, got {self.device!r}")
        if bool(self.layers) == bool(self.choices):
            had = "both" if self.layers else "neither"
            raise ProfilerError(f"a table of latencies has entries of layers or of choices, this one has {had}")
        for what in ("overhead", "relative_error"):
            if getattr(self, what) is not None:
                check_latency(getattr(self, what), what)

    @classmethod
    def from_json(cls, document: Mapping[str, Any], unit: str | None = None, what: str = "the table") -> LatencyTable:
        """Return the table of a document in nasmw's own format.

        Args:
            document: What the JSON says.
            unit: What the caller takes the unit for; None to believe the document.
            what: How messages call the document.

        Raises:
            ProfilerError: If the document is not of this format, has a later version, an unknown field or no unit, or
                its unit is another one than the caller's.
        """
        if document.get("format") != FORMAT:
            raise ProfilerError(f"{what} is no {FORMAT}: its `format` is {document.get('format')!r}")
        version = document.get("version")
        if not isinstance(version, int) or not 1 <= version <= VERSION:
            raise ProfilerError(f"{what} has version {version!r}, this nasmw reads up to {VERSION}; update nasmw")
        for field in document:
            if field not in FIELDS:
                raise ProfilerError(f"{what} has an unknown field {field!r}{did_you_mean(field, FIELDS)}")
        if document.get("unit") is None:
            raise ProfilerError(f"{what} has no unit; write one of {get_args(Unit)} into its field 'unit'")
        scale = milliseconds(document["unit"], what)
        if unit not in (None, document["unit"]):
            raise ProfilerError(f"{what} is in {document['unit']!r}, not in {unit!r} as was said")
        layers = _field(document, "layers", dict, what)
        choices = []
        for term in _field(document, "choices", list, what):
            if not isinstance(term, dict) or term.keys() != {"names", "rows"}:
                raise ProfilerError(f"each of the `choices` of {what} has `names` and `rows`, got {term!r}")
            choices.append(ChoiceLatencies.of(term["names"], term["rows"], scale))
        return cls(
            _field(document, "device", str, what),
            {key: scale * check_latency(value, key) for key, value in layers.items()},
            choices,
            network=_field(document, "network", str, what),
            overhead=scale * check_latency(document.get("overhead", 0), "overhead"),
            relative_error=document.get("relative_error"),
            included=_field(document, "included", list, what),
            notes=_field(document, "notes", dict, what),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the table in nasmw's own format, in milliseconds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": "ms",
            "device": self.device,
            "network": self.network,
            "overhead": self.overhead,
            "relative_error": self.relative_error,
            "included": list(self.included),
            "layers": dict(self.layers),
            "choices": [
                {"names": list(term.names), "rows": [[*json.loads(key), ms] for key, ms in term.latencies.items()]}
                for term in self.choices
            ],
            "notes": dict(self.notes),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON, or where the name ends in ``.npz``, as arrays of keys and latencies.

        In the latter the rest of the document stands as JSON in ``header``; `layers` are ``keys`` and ``latencies``.
        """
        document = self.to_json()
        if Path(path).suffix != ".npz":
            Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            return
        layers: dict[str, float] = document.pop("layers")
        with open(path, "wb") as file:
            np.savez_compressed(
                file,
                header=np.array(json.dumps(document)),
                keys=np.array(list(layers), dtype=np.str_),
                latencies=np.array(list(layers.values()), dtype=np.float64),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Return the table that `save` wrote.

        Raises:
            ProfilerError: If the file is no such table.
        """
        return cls.from_json(read_document(path), what=repr(os.fspath(path)))


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a JSON file says, or the document that an npz file of `LatencyTable.save` holds.

    Raises:
        ProfilerError: If the file is neither.
    """
    what = repr(os.fspath(path))
    if Path(path).suffix == ".npz":
        file = read_arrays(path, ("header", "keys", "latencies"), FORMAT)
        try:
            document = json.loads(str(file["header"]))
            document["layers"] = dict(zip(file["keys"].tolist(), file["latencies"].tolist(), strict=True))
        except (TypeError, ValueError) as error:
            raise ProfilerError(f"{what} is no {FORMAT}: {error}") from error
        return dict(document)
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProfilerError(f"{what} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProfilerError(f"{what} holds a {type(document).__name__}; a table of latencies is an object")
    return document
