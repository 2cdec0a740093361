"""Learned profilers under odd spaces, odd values, damaged files and several writers at once."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasmw import Chain, Choice, Outcomes, Refit, Search, Space, Status
from nasmw.errors import NasmwError, OrderError, ProfilerError
from nasmw.profilers import LearnedProfiler, PredictorStore, from_config
from nasmw.profilers.learned import (
    MLP,
    Adjacency,
    Boosting,
    GaussianProcess,
    Interaction,
    OneHot,
    Predictor,
    Ridge,
    Slots,
    make_predictor,
)
from nasmw.strategies import Random
from nasmw.testing import TableProfiler, toy_space

SPACE = toy_space()
KNOWN = SPACE.sample(60, np.random.default_rng(0))
VALUES = TableProfiler(SPACE).profile_batch(KNOWN)
QUICK: dict[str, Predictor] = {
    "ridge": Ridge(),
    "gp": GaussianProcess(iterations=3, learnt_on=40),
    "mlp": MLP(widths=(8,), epochs=3),
    "boosting": Boosting(trees=10),
}
SPACES = {
    "one architecture": Space([Choice("a", [1])]),
    "single options": Space([Choice("a", [1]), Choice("b", ["x"]), Choice("c", [1, 2, 3])]),
    "conditional": Space(
        [Choice("d", [1, 2, 3]), *(Choice(f"b{i}.k", [3, 5], when={"d": range(i + 1, 4)}) for i in range(3))]
    ),
    "mixed kinds": Space([Choice("f", [0.25, 1.5]), Choice("s", ["x", None]), Choice("t", [(1, 2), (3, 4)])]),
    "many choices": Space([Choice(f"l{i}.op", ["a", "b", "c"]) for i in range(200)]),
    "resolution": Space([Choice("resolution", [128, 160]), Choice("b.k", [3, 5])]),
    "resolution of one option": Space([Choice("resolution", [True]), Choice("b.k", [3, 5])]),
}


def learned(kind: str = "ridge", **options: Any) -> LearnedProfiler:
    return LearnedProfiler(SPACE, QUICK[kind], "slots", **options).fit(KNOWN, VALUES)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("encoding", [None, "one_hot", "counts", "adjacency"])
@pytest.mark.parametrize("kind", ["ridge", "gp"])
def test_odd_spaces(name: str, encoding: str | None, kind: str, tmp_path: Path) -> None:
    space, rng = SPACES[name], np.random.default_rng(0)
    known, new = space.sample(30, rng), space.sample(5, rng)
    profiler = LearnedProfiler(space, QUICK[kind], encoding).fit(known, rng.normal(20.0, 1.0, 30))
    values = profiler.profile_batch(new)
    np.testing.assert_allclose(values, [profiler.profile(architecture) for architecture in new], rtol=1e-9)
    assert np.isfinite(profiler.std(new)).all()
    profiler.save(tmp_path / "saved")
    assert (LearnedProfiler.load(tmp_path / "saved", space).profile_batch(new) == values).all()


@pytest.mark.parametrize("values", [VALUES * 1e300, VALUES * 1e-310, VALUES * 1e-200], ids=["huge", "tiny", "small"])
def test_values_beyond_what_squares_can_hold(values: np.ndarray) -> None:
    with pytest.raises(ProfilerError, match="float64 cannot tell by how much they differ; give them in another unit"):
        LearnedProfiler(SPACE).fit(KNOWN, values)
    profiler = LearnedProfiler(SPACE, transform="log").fit(KNOWN, values)
    np.testing.assert_allclose(profiler.profile_batch(KNOWN), values, rtol=0.2)


def test_values_whose_logarithms_are_equal() -> None:
    values = 1e15 + 0.125 * (np.arange(len(KNOWN)) % 2)
    with pytest.raises(ProfilerError, match="cannot tell by how much they differ"):
        LearnedProfiler(SPACE, transform="log").fit(KNOWN, values)
    waiting = LearnedProfiler(SPACE, transform="log", metric="ms")
    waiting.update(Outcomes(KNOWN, (Status.COMPLETED,) * 60, np.zeros((60, 1)), {"ms": values}))
    assert not waiting.fitted and len(waiting.samples) == 60


def test_values_and_weights_of_the_wrong_kind() -> None:
    with pytest.raises(ProfilerError, match="values of 'latency_ms' are numbers; got"):
        LearnedProfiler(SPACE).fit(KNOWN, ["a"] * 60)
    with pytest.raises(ProfilerError, match="complex numbers"):
        LearnedProfiler(SPACE).fit(KNOWN, VALUES + 1j)
    with pytest.raises(ProfilerError, match="weights are numbers"):
        LearnedProfiler(SPACE).fit(KNOWN, VALUES, weights=["a"] * 60)
    with pytest.raises(TypeError, match="the device of a learned profiler is a string, got 5"):
        LearnedProfiler(SPACE, device=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"given=\{\.\.\.\} maps names to encodings, got 3 for 'mine'"):
        LearnedProfiler(SPACE, encoding="mine", given={"mine": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("ridge", {"penalty": "x"}),
        ("ridge", {"penalty": 0.0}),
        ("gp", {"iterations": "5"}),
        ("gp", {"seed": -1}),
        ("mlp", {"widths": 5}),
        ("mlp", {"widths": (0,)}),
        ("mlp", {"batch": 0}),
        ("mlp", {"learning_rate": -1.0}),
        ("boosting", {"trees": 0}),
        ("boosting", {"leaves": 1}),
        ("boosting", {"columns": 2.0}),
    ],
)
def test_hyperparameters_are_checked_at_once(kind: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ProfilerError, match=rf"\({next(iter(parameters))}=\.\.\.\) takes"):
        make_predictor(kind, **parameters)


def test_hyperparameters_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    predictor = make_predictor("gp", most=np.int64(30), iterations=np.int32(2))
    profiler = LearnedProfiler(SPACE, predictor).fit(KNOWN, VALUES)
    profiler.save(tmp_path / "saved")
    loaded = LearnedProfiler.load(tmp_path / "saved", SPACE)
    assert loaded.predictor.parameters["most"] == 30
    assert (loaded.profile_batch(KNOWN) == profiler.profile_batch(KNOWN)).all()


@pytest.mark.parametrize("power", [1 / 3, 1e-7, -2.123456789, 12345678.0, 2.0])
def test_texts_of_encodings_are_exact(power: float, tmp_path: Path) -> None:
    space = Space([Choice("a b+c", [1, 2]), Choice("k", [3, 5])])
    known = space.sample(20, np.random.default_rng(0))
    encoding = OneHot() + Interaction(Slots(), "a b+c", power)
    profiler = LearnedProfiler(space, encoding=encoding).fit(known, np.arange(20.0))
    profiler.save(tmp_path / "saved")
    loaded = LearnedProfiler.load(tmp_path / "saved", space)
    assert str(loaded.encoding) == str(encoding)
    assert (loaded.profile_batch(known) == profiler.profile_batch(known)).all()


def test_a_chain_joins_each_node_to_the_next_that_is_there() -> None:
    space = SPACES["conditional"]
    names = Adjacency().names(space)
    rows = Adjacency().encode(space.candidates([{"d": 1, "b0.k": 3}, {"d": 2, "b0.k": 3, "b1.k": 5}])).values
    found = [{name for name, value in zip(names, row, strict=True) if value and "->" in name} for row in rows]
    assert found == [{"b0.k -> output"}, {"b0.k -> b1.k", "b1.k -> output"}]


def test_many_candidates_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = learned("gp")
    many = SPACE.sample(100, np.random.default_rng(1))
    whole, std = profiler.profile_batch(many), profiler.std(many)
    monkeypatch.setattr("nasmw.profilers.learned.base.BLOCK", 30)
    np.testing.assert_allclose(profiler.profile_batch(many), whole, rtol=1e-9)
    np.testing.assert_allclose(profiler.std(many), std, rtol=1e-9)


def test_a_sum_knows_what_its_parts_have_learnt() -> None:
    latency, other = learned(), learned(name="other")
    total = latency + other
    latency.fit(KNOWN, 3 * VALUES)
    latency.freeze()
    other.freeze()
    architecture = next(iter(KNOWN))
    assert total.fixed
    assert total.table.value(architecture) == pytest.approx(total.profile(architecture))
    bounds = total.bounds()
    assert bounds is not None
    assert bounds.high == pytest.approx(total.profile(bounds.high_architecture))


# -- files ------------------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Any) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    with path.open("wb") as raw:
        np.savez(raw, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)


@pytest.mark.parametrize("kind", QUICK)
def test_damaged_files_are_errors_or_predict_the_same(kind: str, tmp_path: Path) -> None:
    profiler, path = learned(kind), tmp_path / "saved"
    profiler.save(path)
    whole, values = path.read_bytes(), profiler.profile_batch(KNOWN)
    rng = np.random.default_rng(0)
    for attempt in range(45):
        data = bytearray(whole)
        place = int(rng.integers(len(data)))
        if attempt % 3 == 0:
            del data[place:]
        elif attempt % 3 == 1:
            data[place] ^= 1 << int(rng.integers(8))
        else:
            data[place : place + 20] = bytes(20)
        path.write_bytes(bytes(data))
        try:
            loaded = LearnedProfiler.load(path, SPACE)
        except NasmwError as error:
            assert str(path) in str(error)
        else:
            assert (loaded.profile_batch(KNOWN) == values).all()


@pytest.mark.parametrize("kind", QUICK)
def test_files_that_lack_something(kind: str, tmp_path: Path) -> None:
    profiler, path = learned(kind), tmp_path / "saved"
    profiler.save(path)
    with np.load(path) as file:
        parts = [name for name in file.files if name != "header"]
        keys = [key for key in json.loads(file["header"].tobytes()) if key not in ("samples", "kind", "encoding")]
    for name in parts:
        profiler.save(path)
        rewritten(path, lambda header, arrays, name=name: arrays.pop(name))
        with pytest.raises(ProfilerError, match="damaged"):
            LearnedProfiler.load(path, SPACE)
    for key in keys:
        profiler.save(path)
        rewritten(path, lambda header, arrays, key=key: header.pop(key))
        with pytest.raises(ProfilerError, match="damaged"):
            LearnedProfiler.load(path, SPACE)


def test_a_space_is_needed(tmp_path: Path) -> None:
    learned().save(tmp_path / "saved")
    with pytest.raises(TypeError, match="read for a Space, got 5"):
        LearnedProfiler.load(tmp_path / "saved", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="by a Space first, got None"):
        PredictorStore(tmp_path).get(None)  # type: ignore[arg-type]


# -- stores -----------------------------------------------------------------------------------------------------------


def test_no_device_is_another_device_than_any(tmp_path: Path) -> None:
    store = PredictorStore(tmp_path)
    for device in (None, "any", "", "a/b", ".."):
        store.save(learned(device=device))
    assert len(store.list()) == 5
    for device in (None, "any", "", "a/b", ".."):
        assert store.get(SPACE, device).device == device


def test_a_damaged_file_does_not_hide_what_is_missing(tmp_path: Path) -> None:
    store = PredictorStore(tmp_path)
    store.save(learned(device="phone"))
    store.save(learned(device="broken")).write_bytes(b"nothing")
    with pytest.raises(ProfilerError, match="has no 'latency_ms' on 'phne'.* did you mean 'latency_ms on phone'"):
        store.get(SPACE, "phne")
    with pytest.raises(ProfilerError, match="broken.*damaged"):
        store.list()


def save_often(folder: str, factor: float) -> None:
    store = PredictorStore(folder)
    profiler = LearnedProfiler(SPACE, device="phone").fit(KNOWN, factor * VALUES)
    for _ in range(15):
        store.save(profiler)


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=save_often, args=(str(tmp_path), factor)) for factor in (1.0, 2.0)]
    store = PredictorStore(tmp_path)
    store.save(learned(device="phone"))
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert store.get(SPACE, "phone").fitted
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["latency_ms.npz"]


# -- configurations and Refit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": ["params"]}, "has the kind"),
        ({"kind": {"a": 1}}, "has the kind"),
        ({"kind": "learned", "predictor": "gp", "metric": 5}, "`metric` is to be a str, got 5"),
        ({"kind": "learned", "predictor": "gp", "frozen": "false"}, "`frozen` is to be a bool, got 'false'"),
        ({"kind": "learned", "predictor": "gp", "parameters": 5}, "`parameters` is to be a dict"),
        ({"kind": "learned", "file": 5}, "`file` is to be a str"),
        ({"kind": "flops", "input": []}, "`input` is the shape of an input"),
        ({"kind": "flops", "input": [True, 3]}, "`input` is the shape of an input"),
    ],
)
def test_settings_of_the_wrong_kind(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfilerError, match=rf"\[profilers\.x\].*{message}"):
        from_config(SPACE, {"profilers": {"x": settings}})


def test_nothing_learnt_cannot_be_frozen_by_a_configuration() -> None:
    with pytest.raises(OrderError, match=r"\[profilers\.x\] in the configuration: .* has learnt nothing yet"):
        from_config(SPACE, {"profilers": {"x": {"kind": "learned", "predictor": "gp", "frozen": True}}})


def test_kinds_of_ones_own_may_be_wrong() -> None:
    tables = {"profilers": {"x": {"kind": "mine"}}}
    with pytest.raises(ProfilerError, match="lacks the setting 'size'"):
        from_config(SPACE, tables, kinds={"mine": lambda space, name, settings, folder: settings["size"]})
    with pytest.raises(KeyError, match="a bug"):
        from_config(SPACE, tables, kinds={"mine": lambda space, name, settings, folder: {}["a bug"]})
    with pytest.raises(ProfilerError, match="is to give a profiler named 'x', and gave None"):
        from_config(SPACE, tables, kinds={"mine": lambda space, name, settings, folder: None})  # type: ignore[dict-item, return-value]


def test_not_every_trial_needs_to_be_measured() -> None:
    latency = learned(metric="measured_ms")

    def evaluate(trial: Any) -> dict[str, float]:
        return {"accuracy": 1.0, "measured_ms": 40.0} if trial.number % 4 == 0 else {"accuracy": 1.0}

    Search(SPACE, Chain(Random(), Refit(latency, every=1)), evaluate, progress=False).run(trials=12)
    assert len(latency.samples) == 60 + 3
