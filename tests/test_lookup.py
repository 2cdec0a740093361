"""LookupTableProfiler: sums of measured latencies, their files and units, and what is missing in them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nasmw import Chain, Choice, Filter, Search, Space, spaces
from nasmw.errors import ProfilerError, SpaceError
from nasmw.feasible import FeasibleSet, by_construction
from nasmw.profilers import (
    ChoiceLatencies,
    LatencyTable,
    LookupTableProfiler,
    TorchLatencyProfiler,
    missing_layers,
    read_latency_table,
    required_layers,
)
from nasmw.spaces.family import Part
from nasmw.spaces.layers import Conv, Cost, Placed
from nasmw.strategies import Random
from nasmw.tabled import TabledProfiler
from nasmw.testing import ProfilerContract

IMAGE = (8, 8)


def described(depths: tuple[int, ...] = (1, 2), kernels: tuple[int, ...] = (1, 3)) -> Space:
    """Return a space of one or two convolutions, each described."""
    later = tuple(depth for depth in depths if depth > 1)
    choices = [Choice("depth", depths), Choice("kernel0", kernels)]
    if later:
        choices.append(Choice("kernel1", kernels, {} if later == depths else {"depth": later}))

    def parts() -> list[Part]:
        found = [Part.of(("kernel0",), lambda kernel: [Placed(Conv(3, 4, kernel), IMAGE, IMAGE)])]
        if later:
            found.append(
                Part.of(
                    ("depth", "kernel1"),
                    lambda depth, kernel: [Placed(Conv(4, 4, kernel), IMAGE, IMAGE)] if depth > 1 else [],
                )
            )
        return found

    return Space(choices, name="convs", parts=parts)


LAYERS = {
    "Conv(inputs=3, outputs=4) on 8x8": 1.0,
    "Conv(inputs=3, outputs=4, kernel=3) on 8x8": 2.0,
    "Conv(inputs=4, outputs=4) on 8x8": 10.0,
    "Conv(inputs=4, outputs=4, kernel=3) on 8x8": 20.0,
}


def every_layer(space: Space, seed: int = 0) -> LatencyTable:
    """Return a table with some latency of each option of each choice."""
    rng = np.random.default_rng(seed)
    choices = [
        ChoiceLatencies.of([choice.name], [(option, rng.integers(1, 100) / 8) for option in choice.options])
        for choice in space.choices
    ]
    return LatencyTable("a phone", choices=choices, overhead=0.5, relative_error=0.03)


class TestLookupTableProfiler(ProfilerContract):
    def make(self, space: Space) -> LookupTableProfiler:
        return LookupTableProfiler(space, every_layer(space))


# -- sums ---------------------------------------------------------------------------------------------------------


def test_sums_layers_and_overhead() -> None:
    space = described()
    latency = LookupTableProfiler(space, LatencyTable("board", LAYERS, overhead=0.25))
    assert latency.profile({"depth": 2, "kernel0": 3, "kernel1": 1}) == 12.25
    assert latency.profile({"depth": 1, "kernel0": 3}) == 2.25
    assert (latency.name, latency.unit, latency.device) == ("latency_ms", "ms", "board")
    assert (latency.bounds().low, latency.bounds().high) == (1.25, 22.25)
    assert latency.std(space.candidates([{"depth": 1, "kernel0": 3}])) is None


def test_scopes_are_declared_choices() -> None:
    space = described()
    table = LookupTableProfiler(space, LatencyTable("board", LAYERS)).table
    assert set(table.tables) == {(1,), (0, 2)}


def test_entries_for_a_size_of_images_go_first() -> None:
    own = {"Conv(inputs=3, outputs=4) on 8x8 in 8x8": 5.0, "Conv(inputs=3, outputs=4) on 8x8 in 16x16": 7.0}
    latency = LookupTableProfiler(described(), LatencyTable("board", LAYERS | own))
    assert latency.profile({"depth": 1, "kernel0": 1}) == 5.0


def test_included_layers_need_no_entry() -> None:
    with pytest.raises(ProfilerError, match=r"lacks 1 of the 71 layers.*GlobalPool\(channels=1280\) on 7x7"):
        space = spaces.proxylessnas()
        LookupTableProfiler(
            space,
            LatencyTable("board", {placed.key: 1.0 for placed in required_layers(space) if "Pool" not in placed.key}),
        )
    latencies = LatencyTable(
        "board", {placed.key: 1.0 for placed in required_layers(space)}, included=["GlobalPool", "Linear"]
    )
    skips = {choice.name: choice.options[-1] for choice in space.choices}
    blocks = sum(option != "skip" for option in skips.values())
    assert LookupTableProfiler(space, latencies).profile(skips) == 3 + blocks


@given(st.lists(st.floats(0, 1e6), min_size=4, max_size=4), st.floats(0, 1e3))
def test_sum_is_that_of_the_entries(values: list[float], overhead: float) -> None:
    space = described()
    latency = LookupTableProfiler(
        space, LatencyTable("board", dict(zip(LAYERS, values, strict=True)), overhead=overhead)
    )
    first = dict(zip((1, 3), values[:2], strict=True))
    second = dict(zip((1, 3), values[2:], strict=True))
    for architecture in space.at(range(space.size)):
        expected = first[architecture["kernel0"]] + second.get(architecture.get("kernel1"), 0.0) + overhead
        assert latency.profile(architecture) == pytest.approx(expected)


def test_choices_count_where_they_are_active() -> None:
    space = described()
    rows = [
        ChoiceLatencies.of(["kernel0"], [(1, 1.0), (3, 2.0)]),
        ChoiceLatencies.of(["kernel1"], [(1, 4.0), (3, 8.0)]),
    ]
    latency = LookupTableProfiler(space, LatencyTable("board", choices=rows))
    values = [latency.profile(architecture) for architecture in space.at(range(space.size))]
    assert sorted(values) == [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]


def test_several_choices_and_options_that_are_tuples() -> None:
    space = Space([Choice("inputs", ((0, 1), (1, 2))), Choice("op", ("conv", "pool"))])
    rows = [((0, 1), "conv", 1.0), ([0, 1], "pool", 2.0), ((1, 2), "conv", 3.0), ((1, 2), "pool", 4.0)]
    latency = LookupTableProfiler(space, LatencyTable("board", choices=[ChoiceLatencies.of(["inputs", "op"], rows)]))
    assert latency.profile({"inputs": (1, 2), "op": "pool"}) == 4.0


def test_error_of_the_table_is_that_of_values() -> None:
    space = described()
    latency = LookupTableProfiler(space, LatencyTable("board", LAYERS, relative_error=0.1))
    batch = space.at(range(space.size))
    assert latency.std(batch) == pytest.approx(0.1 * latency.profile_batch(batch))


# -- what others see ----------------------------------------------------------------------------------------------


def test_values_are_measured_and_still_fixed() -> None:
    space = described()
    latency = LookupTableProfiler(space, LatencyTable("board", LAYERS))
    assert latency.kind == "measured"
    assert latency.fixed and latency.pure
    assert (2 * latency + 1).fixed and (2 * latency + 1).pure
    measuring = TorchLatencyProfiler(None, image())
    assert not measuring.fixed and not measuring.pure
    assert not (latency + measuring).fixed and not (latency + measuring).pure
    learned = TabledProfiler(latency.table, "learned", kind="learned")
    assert not (latency + learned).fixed and (latency + learned).pure
    assert by_construction(2 * latency <= 20.0) and not by_construction(latency + learned <= 20.0)


def image() -> torch.Tensor:
    return torch.zeros(1, 3, 8, 8)


def test_limits_are_met_by_construction() -> None:
    space = described()
    latency = LookupTableProfiler(space, LatencyTable("board", LAYERS))
    feasible = FeasibleSet(space, latency <= 2.5)
    assert not feasible.rejected
    assert feasible.count().high == 2
    assert latency.profile_batch(feasible.sample(20, np.random.default_rng(0))).max() <= 2.0


def test_search_looks_up_and_records_nothing() -> None:
    space = described()
    latency = LookupTableProfiler(space, LatencyTable("board", LAYERS))
    search = Search(space, Chain(Random(), Filter(latency <= 12.0)), lambda trial: 1.0, seed=0)
    result = search.run(trials=4)
    assert max(latency.profile(trial.architecture) for trial in result.trials) <= 12.0
    assert not result._recorded


def test_a_table_is_asked_before_a_callable() -> None:
    space = described()
    latency = LookupTableProfiler(space, LatencyTable("board", LAYERS))
    seen: list[float] = []

    def see(architecture: Any) -> bool:
        seen.append(latency.profile(architecture))
        return True

    chain = Chain(Random(), Filter(see, latency <= 12.0, pushdown=False))
    Search(space, chain, lambda trial: 1.0, seed=0).run(trials=4)
    assert seen and max(seen) <= 12.0


# -- what is missing ----------------------------------------------------------------------------------------------


def test_missing_layers_are_listed() -> None:
    some = dict(list(LAYERS.items())[:2])
    with pytest.raises(
        ProfilerError,
        match=r"the table of board lacks 2 of the 4 layers that <Space 'convs'.*"
        r"Missing are Conv\(inputs=4, outputs=4\) on 8x8 \(in 1 part\); Conv\(inputs=4, outputs=4, kernel=3\) on 8x8 ",
    ):
        LookupTableProfiler(described(), LatencyTable("board", some))
    missing = missing_layers(described(), LatencyTable("board", some))
    assert list(missing) == list(LAYERS)[2:]
    layer = missing["Conv(inputs=4, outputs=4, kernel=3) on 8x8"]
    assert isinstance(layer.layer.module(), nn.Module) and layer.at == IMAGE
    complete = LatencyTable("board", some | {key: 1.0 for key in missing})
    assert not missing_layers(described(), complete)
    assert LookupTableProfiler(described(), complete).profile({"depth": 2, "kernel0": 1, "kernel1": 3}) == 2.0


def test_missing_rows_are_listed() -> None:
    space = Space([Choice("kernel", (3, 5, 7))])
    rows = [ChoiceLatencies.of(["kernel"], [(3, 1.0)])]
    with pytest.raises(ProfilerError, match=r"lacks 2 rows .* Missing are kernel being \[5\]; kernel being \[7\]"):
        LookupTableProfiler(space, LatencyTable("board", choices=rows))


def test_choices_that_the_table_does_not_know() -> None:
    space = Space([Choice("kernel", (3, 5)), Choice("width", (8, 16))])
    rows = [ChoiceLatencies.of(["kernel"], [(3, 1.0), (5, 2.0)])]
    with pytest.raises(ProfilerError, match="says nothing of 'width'.*rows of 0"):
        LookupTableProfiler(space, LatencyTable("board", choices=rows))
    rows = [ChoiceLatencies.of(["kernels"], [(3, 1.0), (5, 2.0)])]
    with pytest.raises(SpaceError, match="no choice 'kernels'; did you mean 'kernel'"):
        LookupTableProfiler(Space([Choice("kernel", (3, 5))]), LatencyTable("board", choices=rows))
    odd = Space([Choice("op", (nn.ReLU, nn.Tanh))])
    with pytest.raises(ProfilerError, match="JSON cannot hold"):
        LookupTableProfiler(odd, LatencyTable("board", choices=[ChoiceLatencies.of(["op"], [("relu", 1.0)])]))


@pytest.mark.parametrize("make", [lambda: Space([Choice("a", (1, 2))]), lambda: costs_only()], ids=["none", "costs"])
def test_spaces_without_descriptions(make: Callable[[], Space]) -> None:
    with pytest.raises(ProfilerError, match="does not describe its layers.*table over choices"):
        LookupTableProfiler(make(), LatencyTable("board", LAYERS))
    with pytest.raises(ProfilerError, match="does not describe its layers"):
        required_layers(make())


def costs_only() -> Space:
    return Space([Choice("a", (1, 2))], parts=lambda: [Part(("a",), lambda a: Cost(a))])


def test_parts_are_a_function() -> None:
    parts: Any = [Part(("a",), lambda a: Cost(a))]
    with pytest.raises(SpaceError, match="`parts` must be a function"):
        Space([Choice("a", (1, 2))], parts=parts)


# -- files --------------------------------------------------------------------------------------------------------


def document(**changes: Any) -> dict[str, Any]:
    whole = {
        "format": "nasmw latency table",
        "version": 1,
        "unit": "ms",
        "device": "board",
        "layers": LAYERS,
        **changes,
    }
    return {field: value for field, value in whole.items() if value is not None}


def write(folder: Path, content: object) -> Path:
    path = folder / "table.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(("unit", "scale"), [("s", 1000.0), ("ms", 1.0), ("us", 0.001)])
def test_units_become_milliseconds(tmp_path: Path, unit: str, scale: float) -> None:
    path = write(tmp_path, document(unit=unit, overhead=4))
    latency = LookupTableProfiler(described(), path)
    assert latency.unit == "ms"
    assert latency.profile({"depth": 1, "kernel0": 3}) == pytest.approx(6.0 * scale)
    assert LookupTableProfiler(described(), path, unit=unit).bounds() == latency.bounds()
    rows = [{"names": ["kernel"], "rows": [[3, 1.0], [5, 2.0]]}]
    over_choices = write(tmp_path, document(unit=unit, layers=None, choices=rows))
    space = Space([Choice("kernel", (3, 5))])
    assert LookupTableProfiler(space, over_choices).profile({"kernel": 5}) == pytest.approx(2.0 * scale)


@pytest.mark.parametrize("suffix", ["json", "npz"])
@pytest.mark.parametrize(
    "table",
    [
        LatencyTable("board", LAYERS, network="two", overhead=0.5, relative_error=0.1, included=["Linear"]),
        LatencyTable(
            "board",
            choices=[ChoiceLatencies.of(["a", "b"], [((1, 2), "x", 1.5), (None, True, 2.5)])],
            notes={"date": "2024-05-06", "versions": {"runtime": [1, 2]}},
        ),
    ],
    ids=["layers", "choices"],
)
def test_saved_tables_come_back(tmp_path: Path, suffix: str, table: LatencyTable) -> None:
    path = tmp_path / f"table.{suffix}"
    table.save(path)
    assert LatencyTable.load(path) == table
    assert read_latency_table(path, "nasmw") == table
    assert pickle.loads(pickle.dumps(table)) == table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(unit=None), "has no unit; write one of"),
        (document() | {"unit": None}, "has no unit; write one of"),
        (document(unit="seconds"), r"unit of .*table.json' is one of \('s', 'ms', 'us'\), got 'seconds'"),
        (document(version=2), "has version 2, this nasmw reads up to 1; update"),
        (document(version=None), "has version None"),
        (document(units="ms"), "unknown field 'units'; did you mean 'unit'"),
        (document(format="other"), "its `format` is 'other'"),
        (document(device=None), "names its device"),
        (document(device=3), "'device' of .* is a str, got 3"),
        (document(layers=None), "of layers or of choices, this one has neither"),
        (document(layers=[1]), "'layers' of .* is a dict"),
        (document(layers={"Linear(inputs=1, outputs=1) on 1": -1}), "Linear.* of at least 0, got -1"),
        (document(layers={"Linear(inputs=1, outputs=1) on 1": "1 ms"}), "finite number of at least 0, got '1 ms'"),
        (document(layers={"Linear(inputs=1, outputs=1) on 1": float("nan")}), "finite number"),
        (document(overhead=True), "latency of overhead must be a finite number"),
        (document(relative_error=-0.5), "relative_error must be"),
        (document(choices=[{"names": ["a"], "rows": [[1, 2.0]]}]), "this one has both"),
        (document(layers=None, choices=[{"names": ["a"]}]), "has `names` and `rows`"),
        (
            document(layers=None, choices=[{"names": ["a"], "rows": [[1, 2, 3]]}]),
            r"options and a number, got \[1, 2, 3",
        ),
        (document(layers=None, choices=[{"names": ["a"], "rows": [[1, 2], [1, 3]]}]), r"two rows for \[1\]"),
        ({"layers": LAYERS}, "none of the formats.*'nasmw latency table', this file's fields are 'layers'"),
        ([1, 2], "holds a list"),
        ("3 ms", "is no JSON"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ProfilerError, match=message):
        read_latency_table(write(tmp_path, content))


def test_units_and_formats_that_contradict_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    with pytest.raises(ProfilerError, match="is in 'ms', not in 's' as was said"):
        LookupTableProfiler(described(), path, unit="s")
    with pytest.raises(ProfilerError, match="has the format 'nasmw', not 'fbnet'"):
        LookupTableProfiler(described(), path, format="fbnet")
    wrong: Any = "yaml"
    with pytest.raises(ProfilerError, match="`format` is one of"):
        LookupTableProfiler(described(), path, format=wrong)
    with pytest.raises(ProfilerError, match="a LatencyTable is in milliseconds"):
        LookupTableProfiler(described(), LatencyTable("board", LAYERS), unit="s")
    nothing: Any = 3
    with pytest.raises(TypeError, match="takes a LatencyTable or the path of one, got 3"):
        LookupTableProfiler(described(), nothing)
    with pytest.raises(TypeError, match="takes a Space first, got int"):
        LookupTableProfiler(nothing, path)


def test_an_array_file_of_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", block_ms=np.zeros(3))
    with pytest.raises(ProfilerError, match=r"lacks the arrays \['header', 'keys', 'latencies'\]"):
        read_latency_table(tmp_path / "other.npz")


def test_keys_stay_what_files_have() -> None:
    keys = [placed.image_key for placed in required_layers(spaces.ofa_mobilenetv3(resolutions=[160]))]
    assert keys[0] == "Conv(inputs=3, outputs=16, kernel=3, stride=2, activation='h_swish') on 160x160 in 160x160"
    assert "InvertedResidual(inputs=16, outputs=16, hidden=16, kernel=3, expand=False) on 80x80 in 160x160" in keys
    assert (
        "InvertedResidual(inputs=24, outputs=40, hidden=144, kernel=7, stride=2, squeeze=True) on 40x40 in 160x160"
        in keys
    )
    assert "Linear(inputs=1280, outputs=1000) on 1 in 160x160" in keys
    assert len(set(keys)) == 6 + 9 * 2 * 5


@pytest.mark.parametrize(
    "space", [spaces.ofa_mobilenetv3(), spaces.compofa(), spaces.fbnet(), spaces.mobilenetv3(), spaces.nasbench201()]
)
def test_descriptions_of_ready_spaces_are_those_of_their_costs(space: Space) -> None:
    ones = LatencyTable("board", {placed.key: placed.cost().macs for placed in required_layers(space)})
    batch = space.sample(50, np.random.default_rng(0))
    macs = space.tables["macs"](space, None)
    assert np.array_equal(LookupTableProfiler(space, ones).profile_batch(batch), macs.evaluate(batch))


# -- formats of others --------------------------------------------------------------------------------------------

BLOCK = "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({BLOCK: {"mean": 1.0}}, "does not say in which unit .* pass unit=..."),
        ({"unit": "ms", BLOCK: 1.0}, "is an object with a 'mean', got 1.0"),
        ({"unit": "ms", BLOCK: {"mean": 1.0}, "Conv-x": {"mean": 1.0}}, "key 'Conv-x' names no layer"),
        ({"unit": "ms", "Pool-input:2x2x3-output:1x1x3": {"mean": 1.0}}, "kind of layer that is not known"),
        ({"unit": "ms", BLOCK.replace("56x56", "55x55"): {"mean": 1.0}}, "output would be 56x56"),
        ({"unit": "ms", BLOCK.replace("skip:0", "skip:1"): {"mean": 1.0}}, "idskip:1 of a block that has another"),
        (
            {"unit": "ms", BLOCK: {"mean": "fast"}},
            "latency of 'expanded_conv.* finite number of at least 0, got 'fast'",
        ),
        ({"tables": {"160": {}}}, "does not say in which unit"),
        ({"unit": "ms", "tables": {"small": {}}}, "by the height of images, got 'small'"),
        ({"unit": "ms", "tables": {"160": [1.0]}}, r"a key for each layer, got \[1.0\]"),
        ({"ops": ["skip"], "latency_ms": [[1.0, 2.0]]}, "one row for each layer, of 1 latencies"),
        ({"ops": ["skip"], "latency_ms": [[1.0]], "latency_us": [[1.0]]}, r"got \['latency_ms', 'latency_us'\]"),
        ({"ops": ["skip"], "latency": [[1.0]]}, "does not say in which unit"),
        ({"ops": ["skip"], "latency_minutes": [[1.0]]}, "is one of .*, got 'minutes'"),
    ],
)
def test_foreign_files_that_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ProfilerError, match=message):
        read_latency_table(write(tmp_path, content))


def test_units_that_contradict_foreign_files(tmp_path: Path) -> None:
    for content in ({"unit": "us", BLOCK: {"mean": 1.0}}, {"ops": ["skip"], "latency_us": [[1.0]]}):
        path = write(tmp_path, content)
        with pytest.raises(ProfilerError, match="is in 'us', not in 'ms' as was said"):
            read_latency_table(path, unit="ms")
        assert read_latency_table(path, unit="us") == read_latency_table(path)


@pytest.fixture(scope="module")
def data() -> Path:
    folder = os.environ.get("NASMW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NASMW_DATA names no folder with published data")
    return Path(folder)


def published(space: Space, path: Path) -> tuple[Any, Any]:
    """Return the candidates of a file of once-for-all latencies, and these."""
    with np.load(path) as file:
        kernels, expands, depths, resolutions = (file[key].tolist() for key in ("ks", "e", "d", "r"))
        latencies = file["latency_ms"].astype(np.float64)
    architectures = []
    for kernel, expand, depth, resolution in zip(kernels, expands, depths, resolutions, strict=True):
        architecture = {"resolution": resolution} | {f"stage{stage}.depth": each for stage, each in enumerate(depth)}
        for slot in range(20):
            stage, block = divmod(slot, 4)
            for name, value in (("kernel", kernel[slot]), ("expand", expand[slot])):
                if f"stage{stage}.block{block}.{name}" in space.names and block < depth[stage]:
                    architecture[f"stage{stage}.block{block}.{name}"] = value
        architectures.append(architecture)
    return space.candidates(architectures), latencies


MEASURED = range(160, 225, 4)


@pytest.mark.parametrize(
    ("file", "space"),
    [
        ("ofa", spaces.ofa_mobilenetv3(1.2, MEASURED)),
        ("compofa_elastic", spaces.compofa("elastic", 1.2, MEASURED)),
        ("compofa_fixed", spaces.compofa("fixed", 1.2, MEASURED)),
    ],
)
def test_published_latencies_of_once_for_all(data: Path, file: str, space: Space) -> None:
    latency = LookupTableProfiler(space, data / "ofa" / "note10_lut_raw.json")
    batch, latencies = published(space, data / "ofa" / f"latency_note10_{file}.npz")
    assert len(batch) == 10_000
    assert np.abs(latency.profile_batch(batch) - latencies).max() < 1e-4
    first = next(iter(batch))
    assert latency.profile(first) == pytest.approx(latencies[0], abs=1e-4)


def test_resolution_counts_and_inactive_choices_do_not(data: Path) -> None:
    space = spaces.ofa_mobilenetv3(1.2, MEASURED)
    latency = LookupTableProfiler(space, data / "ofa" / "note10_lut_raw.json")
    assert "Note10" in str(latency.device)
    for architecture in space.sample(20, np.random.default_rng(0)):
        values = [latency.profile({**architecture, "resolution": resolution}) for resolution in MEASURED]
        assert len(set(values)) == len(MEASURED)
        assert values[-1] > 1.5 * values[0]
        filled = {choice.name: choice.options[-1] for choice in space.choices} | architecture
        assert latency.profile(filled) == latency.profile(architecture)
    codes = space.sample(200, np.random.default_rng(1)).codes
    changed = np.where(space.active(codes), codes, 1).astype(codes.dtype)
    assert (changed != codes).any()
    assert np.array_equal(latency.table.evaluate(changed), latency.table.evaluate(codes))


def test_other_resolutions_are_missing(data: Path) -> None:
    with pytest.raises(
        ProfilerError,
        match=r"lacks 768 of the 2400 layers.*By size of images: 128x128: 96 of 96; .*156x156: 96 of 96\.",
    ):
        LookupTableProfiler(spaces.ofa_mobilenetv3(1.2), data / "ofa" / "note10_lut_raw.json")
    with pytest.raises(ProfilerError, match="lacks 96 of the 96 layers"):
        LookupTableProfiler(spaces.ofa_mobilenetv3(1.0, [224]), data / "ofa" / "note10_lut_raw.json")


def test_imported_table_in_our_format(data: Path, tmp_path: Path) -> None:
    space = spaces.compofa("fixed", 1.2, [160, 224])
    raw = LookupTableProfiler(space, data / "ofa" / "note10_lut_raw.json")
    read_latency_table(data / "ofa" / "note10_lut_raw.json", "once-for-all").save(tmp_path / "note10.json")
    again = LookupTableProfiler(space, tmp_path / "note10.json")
    batch = space.at(range(space.size))
    assert np.array_equal(raw.profile_batch(batch), again.profile_batch(batch))


def test_fbnet(data: Path) -> None:
    raw = json.loads((data / "luts" / "fbnet_lut.json").read_text())
    space = spaces.fbnet()
    latency = LookupTableProfiler(space, data / "luts" / "fbnet_lut.json")
    names = {"k3_e1_g2": "ir_k3_s2", "k5_e1_g2": "ir_k5_s2", "skip": "skip"}
    for architecture in space.sample(100, np.random.default_rng(0)):
        microseconds = 0.0
        for layer in range(22):
            operator = architecture[f"layer{layer}.op"]
            microseconds += raw["latency_us"][layer][raw["ops"].index(names.get(operator, f"ir_{operator}"))]
        assert latency.profile(architecture) == pytest.approx(microseconds / 1000, rel=1e-12)


def test_proxylessnas(data: Path) -> None:
    """The operators of the published network for mobile phones; the table has 24 channels where that has 32."""
    path = data / "luts" / "pixel1_proxylessnas.json"
    operators = (
        "k5_e3 k3_e3 skip skip k7_e3 k3_e3 k5_e3 k5_e3 k7_e6 k5_e3 k5_e3 k5_e3 k5_e6 k5_e3 k5_e3 k5_e3 "
        "k7_e6 k7_e6 k7_e3 k7_e3 k7_e6"
    )
    with pytest.raises(ProfilerError, match="does not say in which unit"):
        LookupTableProfiler(spaces.proxylessnas(), path)
    with pytest.raises(ProfilerError, match="lacks 18 of the 71 layers"):
        LookupTableProfiler(spaces.proxylessnas(widths=(32, 40, 80, 96, 192, 320)), path, unit="ms")
    raw = json.loads(path.read_text())
    keys = [
        "Conv-input:224x224x3-output:112x112x32",
        "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
        "Conv_1-input:7x7x320-output:7x7x1280",
        "Logits-input:7x7x1280-output:1000",
    ]
    stages = [(112, 56, 16, 24, 4), (56, 28, 24, 40, 4), (28, 14, 40, 80, 4), (14, 14, 80, 96, 4), (14, 7, 96, 192, 4)]
    stages.append((7, 7, 192, 320, 1))
    place = iter(operators.split())
    for before, after, inputs, outputs, blocks in stages:
        for block in range(blocks):
            if (operator := next(place)) == "skip":
                continue
            kernel, expand = operator[1], operator[4]
            stride = 1 if block else before // after
            side, channels = (after, outputs) if block else (before, inputs)
            keys.append(
                f"expanded_conv-input:{side}x{side}x{channels}-output:{after}x{after}x{outputs}-expand:{expand}-"
                f"kernel:{kernel}-stride:{stride}-idskip:{int(bool(block))}"
            )
    space = spaces.proxylessnas()
    latency = LookupTableProfiler(space, path, unit="ms")
    architecture = dict(zip(space.names, operators.split(), strict=True))
    assert latency.profile(architecture) == pytest.approx(sum(raw[key]["mean"] for key in keys), abs=1e-9)
    seconds = LookupTableProfiler(space, path, unit="s", name="other")
    assert seconds.profile(architecture) == pytest.approx(1000 * latency.profile(architecture))


def test_layers_of_a_users_own_kind() -> None:
    @attrs.frozen
    class Mixer:
        channels: int
        heads: int = 4

        def module(self) -> nn.Module:
            return nn.Linear(self.channels, self.channels)

        def cost(self, tokens: int) -> Cost:
            return Cost(macs=tokens * self.channels**2)

    space = Space(
        [Choice("channels", (8, 16))],
        parts=lambda: [Part.of(("channels",), lambda channels: [Placed(Mixer(channels), 49, IMAGE)])],
    )
    table = LatencyTable("board", {"Mixer(channels=8) on 49": 1.0, "Mixer(channels=16) on 49": 3.0})
    assert LookupTableProfiler(space, table).profile({"channels": 16}) == 3.0
