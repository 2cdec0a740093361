"""Published tables of latencies, read into a `LatencyTable`: once-for-all, ProxylessNAS, FBNet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from nasmw.errors import ProfilerError
from nasmw.profilers.lookup_file import (
    FORMAT,
    ChoiceLatencies,
    LatencyTable,
    check_latency,
    milliseconds,
    read_document,
)
from nasmw.spaces.layers import Conv, GlobalPool, InvertedResidual, Layer, Linear, Placed, Size, strided

__all__ = ["TableFormat", "read_latency_table"]

TableFormat = Literal["nasmw", "once-for-all", "proxylessnas", "fbnet"]

KEY = re.compile(
    r"(?P<kind>\w+)-input:(?P<height>\d+)x(?P<width>\d+)x(?P<inputs>\d+)"
    r"-output:(?:(?P<out_height>\d+)x(?P<out_width>\d+)x)?(?P<outputs>\d+)"
    r"(?:-expand:(?P<expand>\d+)-kernel:(?P<kernel>\d+)-stride:(?P<stride>\d+)-idskip:(?P<idskip>[01]))?"
    r"(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?"
)
FBNET_SHUFFLED = re.compile(r"k(\d)_s2")


def read_latency_table(
    path: str | os.PathLike[str], format: TableFormat | None = None, unit: str | None = None
) -> LatencyTable:
    """Return the latencies of a file.

    Formats, recognised by what the file holds:

    - ``"nasmw"``: what `LatencyTable.save` writes, JSON or npz
    - ``"once-for-all"``: ``tables`` for each height of images, with keys of layers and ``mean`` of each, as Cai et
      al., Once-for-All, ICLR 2020, measured them on a Samsung Note10; entries stay apart by the size of images
    - ``"proxylessnas"``: keys of layers and ``mean`` of each, as Cai, Zhu, Han, ProxylessNAS, ICLR 2019, measured them
      on a Google Pixel 1; the unit must be said. ``Logits`` includes the global pooling.
    - ``"fbnet"``: ``ops`` and ``latency_us``, one row for each of the 22 layers of Wu et al., FBNet, CVPR 2019; what
      comes before and after these layers is not in it

    What their keys do not say of convolutions is what the networks of these papers have.

    Args:
        path: The file.
        format: The format, where it is to be checked.
        unit: ``"s"``, ``"ms"`` or ``"us"``; needed where the file does not say it.

    Raises:
        ProfilerError: If the file has no known or another format, no unit or another one, or an entry is unclear.
    """
    if format is not None and format not in get_args(TableFormat):
        raise ProfilerError(f"`format` is one of {get_args(TableFormat)}, got {format!r}")
    what = repr(os.fspath(path))
    document = read_document(path)
    found = _recognised(document)
    if found is None:
        raise ProfilerError(
            f"{what} has none of the formats {get_args(TableFormat)}; a table of ours has 'format': {FORMAT!r}, "
            f"this file's fields are {', '.join(map(repr, list(document)[:5]))}"
        )
    if format not in (None, found):
        raise ProfilerError(f"{what} has the format {found!r}, not {format!r}")
    if found == "nasmw":
        return LatencyTable.from_json(document, unit, what)
    if found == "fbnet":
        return _fbnet(document, unit, what)
    said = document.get("unit")
    if said is not None and unit not in (None, said):
        raise ProfilerError(f"{what} is in {said!r}, not in {unit!r} as was said")
    scale = milliseconds(said or unit, what)
    return (_once_for_all if found == "once-for-all" else _proxylessnas)(document, scale)


def _recognised(document: Mapping[str, Any]) -> TableFormat | None:
    if "format" in document:
        return "nasmw"
    if isinstance(document.get("tables"), dict):
        return "once-for-all"
    if "ops" in document and any(str(field).startswith("latency") for field in document):
        return "fbnet"
    if any(KEY.fullmatch(key) for key in document):
        return "proxylessnas"
    return None


def _once_for_all(document: Mapping[str, Any], scale: float) -> LatencyTable:
    layers = {}
    for height, entries in document["tables"].items():
        if not height.isdecimal():
            raise ProfilerError(f"the `tables` of once-for-all are by the height of images, got {height!r}")
        image = int(height), int(height)
        for layer, at, mean in _entries(entries, "h_swish"):
            layers[Placed(layer, at, image).image_key] = scale * mean
    network = document.get("network", "once-for-all networks of MobileNetV3")
    return LatencyTable(document.get("device", "Samsung Note10"), layers, network=network)


def _proxylessnas(document: Mapping[str, Any], scale: float) -> LatencyTable:
    entries = {key: entry for key, entry in document.items() if key not in ("unit", "device")}
    layers = {Placed(layer, at, (0, 0)).key: scale * mean for layer, at, mean in _entries(entries, "relu6")}
    device = document.get("device", "Google Pixel 1")
    return LatencyTable(device, layers, network="ProxylessNAS", included=["GlobalPool"])


def _entries(entries: object, activation: str) -> Iterator[tuple[Layer, Size | int, float]]:
    """Yield each entry's layer, what it is applied to, and its mean latency."""
    if not isinstance(entries, Mapping):
        raise ProfilerError(f"latencies are an object with a key for each layer, got {entries!r}")
    for key, entry in entries.items():
        fields = KEY.fullmatch(key)
        if fields is None:
            raise ProfilerError(
                f"the key {key!r} names no layer; one is written like 'Logits-input:7x7x1280-output:1000'"
            )
        if not isinstance(entry, Mapping) or "mean" not in entry:
            raise ProfilerError(f"the entry of {key!r} is an object with a 'mean', got {entry!r}")
        yield (*_layer(key, fields.groupdict(), activation), check_latency(entry["mean"], repr(key)))


def _layer(key: str, fields: Mapping[str, str | None], activation: str) -> tuple[Layer, Size | int]:
    """Return the layer that a key names, and what it is applied to."""
    numbers = {name: int(text) for name, text in fields.items() if name != "kind" and text is not None}
    inputs, outputs, size = numbers["inputs"], numbers["outputs"], (numbers["height"], numbers["width"])
    layer: Layer
    after = size
    match fields["kind"]:
        case "Conv":
            layer, after = Conv(inputs, outputs, 3, 2, activation=activation), strided(size, 2)
        case "Conv_1":
            layer = Conv(inputs, outputs, activation=activation)
        case "Conv_2":
            layer = Conv(inputs, outputs, norm=False, activation=activation)
        case "AvgPool2D":
            layer, after = GlobalPool(inputs), (1, 1)
        case "Logits":
            return Linear(inputs, outputs), 1
        case "expanded_conv" if "expand" in numbers:
            layer, after = _block(key, numbers), strided(size, numbers["stride"])
        case _:
            raise ProfilerError(f"the key {key!r} names a kind of layer that is not known")
    if after != (numbers.get("out_height"), numbers.get("out_width")):
        raise ProfilerError(f"the key {key!r} contradicts itself: its output would be {after[0]}x{after[1]}")
    return layer, size


def _block(key: str, numbers: Mapping[str, int]) -> InvertedResidual:
    """Return the block of a key: with ``se`` and ``hs`` it counts hidden channels, without it has a factor."""
    inputs = numbers["inputs"]
    if "se" in numbers:
        hidden, activation = numbers["expand"], "h_swish" if numbers["hs"] else "relu"
    else:
        hidden, activation = numbers["expand"] * inputs, "relu6"
    block = InvertedResidual(
        inputs,
        numbers["outputs"],
        hidden,
        numbers["kernel"],
        numbers["stride"],
        activation,
        bool(numbers.get("se")),
        expand=hidden != inputs,
    )
    if block.shortcut != bool(numbers["idskip"]):
        raise ProfilerError(f"the key {key!r} says idskip:{numbers['idskip']} of a block that has another shortcut")
    return block


def _fbnet(document: Mapping[str, Any], unit: str | None, what: str) -> LatencyTable:
    fields = [field for field in document if field.startswith("latency")]
    operators, field = document["ops"], fields[0]
    rows = document[field]
    if len(fields) > 1 or not _is_matrix(rows, len(operators)):
        raise ProfilerError(f"{what} has one row for each layer, of {len(operators)} latencies; got {fields}: {rows!r}")
    said = document.get("unit", field.removeprefix("latency").removeprefix("_") or None)
    if said is not None and unit not in (None, said):
        raise ProfilerError(f"{what} is in {said!r}, not in {unit!r} as was said")
    scale = milliseconds(said or unit, what)
    # Their s2 is a shuffle of the channels of two groups.
    names = [FBNET_SHUFFLED.sub(r"k\1_e1_g2", str(operator).removeprefix("ir_")) for operator in operators]
    choices = [
        ChoiceLatencies.of([f"layer{number}.op"], list(zip(names, row, strict=True)), scale)
        for number, row in enumerate(rows)
    ]
    device = document.get("device", "the CPU of the table's author")
    return LatencyTable(device, choices=choices, network="FBNet, the 22 layers to choose")


def _is_matrix(rows: object, columns: int) -> bool:
    return isinstance(rows, list) and all(isinstance(row, list) and len(row) == columns for row in rows)
