"""Few-shot transfer from several sources: the Gaussian process, its parts, and the profiler around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nasmw import Candidates, Choice, CostTable, Space
from nasmw.candidates import Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profilers.learned import (
    Blocks,
    Given,
    LayerWork,
    LearnedProfiler,
    MultiSource,
    MultiSourceEncoding,
    MultiSourceProfiler,
    OneHot,
    SourceDevices,
    Structure,
    TransferProfiler,
    files,
    multi_source_encoding,
)
from nasmw.profilers.learned.averaging import draw_variances
from nasmw.profilers.learned.multi_source import kernels
from nasmw.profilers.learned.scores import Scores, normal_scores
from nasmw.profilers.learned.source_devices import SourceDevice
from nasmw.spaces import fbnet, nasbench201
from nasmw.spaces.family import Part
from nasmw.tabled import TabledProfiler
from nasmw.testing import ProfilerContract, TableProfiler, toy_space

CELLS = nasbench201()


def made_up(space: Space, weights: dict[str, float], device: str) -> TabledProfiler:
    """Return a device whose latency is a weighted sum of the work of a network."""
    work = LayerWork()
    numbers = np.array([weights.get(name, 0.0) for name in work.names(space)])
    return TabledProfiler(CostTable(space, work.terms(space, numbers), 1.0, name="latency_ms"), device=device)


FIRST = made_up(CELLS, {"macs": 20.0, "number": 4.0}, "first")
SECOND = made_up(CELLS, {"conv elements": 8.0, "AvgPool elements": 9.0, "number": 2.0}, "second")
TARGET = made_up(CELLS, {"macs": 8.0, "conv elements": 5.0, "AvgPool elements": 4.0, "number": 3.0}, "target")
NETWORKS = CELLS.sample(400, np.random.default_rng(3))


def idle() -> list[Part]:
    """Return parts of networks that do nothing."""
    return [Part.of(("a",), lambda a: ()), Part.of((), lambda: ())]


def test_proxies_of_some_networks_are_enough() -> None:
    """Means and sizes of columns are then those of the networks that have numbers."""
    known = NETWORKS[:60]
    values = TARGET.profile_batch(known)
    given = {"proxies": Given("proxies", (known.codes, values[:, None]), ["macs"])}
    profiler = MultiSourceProfiler(CELLS, FIRST, encoding="one_hot + proxies", given=given)
    profiler.fit(known[:20], values[:20])
    assert spearman(profiler.profile_batch(known[20:]), values[20:]) > 0.95
    with pytest.raises(ProfilerError, match="was given no numbers for"):
        profiler.profile_batch(NETWORKS[60:70])


def spearman(first: Floats, second: Floats) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(first)), np.argsort(np.argsort(second)))[0, 1])


class TestMultiSourceProfilerContract(ProfilerContract):
    def make(self, space: Space) -> MultiSourceProfiler:
        known = space.sample(40, np.random.default_rng(7))
        source = TableProfiler(space, name="source")
        profiler = MultiSourceProfiler(space, source)
        profiler.fit(known, 1.0 + source.profile_batch(known))
        return profiler


class TestSourceDeviceContract(ProfilerContract):
    def make(self, space: Space) -> SourceDevice:
        known = space.sample(60, np.random.default_rng(7))
        values = TableProfiler(space).profile_batch(known)
        sources = SourceDevices(space, ["one", "two"]).fit(known, np.stack([values, values**2], axis=1))
        return list(sources)[1]


# -- the profiler ---------------------------------------------------------------------------------------------------


def test_twenty_measurements_suffice() -> None:
    rng = np.random.default_rng(0)
    profiler = MultiSourceProfiler(CELLS, [FIRST, SECOND], device="target")
    chosen = NETWORKS[profiler.to_measure(NETWORKS, 20)]
    profiler.fit(chosen, TARGET.profile_batch(chosen) * np.exp(0.03 * rng.normal(size=20)))
    said, true = profiler.profile_batch(NETWORKS), TARGET.profile_batch(NETWORKS)
    assert spearman(said, true) > 0.98
    assert np.mean(np.abs(said / true - 1.0)) < 0.05
    low, high = profiler.interval(NETWORKS, coverage=0.9)
    assert np.mean((low <= true) & (true <= high)) > 0.8
    assert (profiler.std(NETWORKS) > 0).all()


def test_sources_are_better_than_none() -> None:
    rows = np.random.default_rng(1).choice(len(NETWORKS), 8, replace=False)
    true = TARGET.profile_batch(NETWORKS)

    def error(sources: list[TabledProfiler], encoding: str) -> float:
        profiler = MultiSourceProfiler(CELLS, sources, encoding=encoding).fit(NETWORKS[rows], true[rows])
        return float(np.mean(np.abs(profiler.profile_batch(NETWORKS) / true - 1.0)))

    alone = error([], "one_hot")
    assert error([SECOND], "one_hot") < 0.7 * alone
    assert error([FIRST, SECOND], "one_hot") < 0.7 * alone


def test_structure_helps_where_sources_say_nothing() -> None:
    rows = np.random.default_rng(1).choice(len(NETWORKS), 12, replace=False)
    true = TARGET.profile_batch(NETWORKS)
    tables = np.random.default_rng(5).random((len(CELLS), 5))
    terms = [((choice.name,), table) for choice, table in zip(CELLS.choices, tables, strict=True)]
    unlike = TabledProfiler(CostTable(CELLS, terms, 1.0, name="unlike"))
    errors = {}
    for encoding in ("one_hot", "structure + work + one_hot"):
        profiler = MultiSourceProfiler(CELLS, unlike, encoding=encoding).fit(NETWORKS[rows], true[rows])
        errors[encoding] = float(np.mean(np.abs(profiler.profile_batch(NETWORKS) / true - 1.0)))
    assert errors["structure + work + one_hot"] < 0.5 * errors["one_hot"]


def test_the_scale_on_which_work_adds_up_is_found() -> None:
    """Of a sum the warp that makes milliseconds of logarithms is the likelier one, of its inverse the other."""
    rows = np.random.default_rng(2).choice(len(NETWORKS), 40, replace=False)
    true = TARGET.profile_batch(NETWORKS)[rows]
    shares = []
    for measured in (true, 1.0 / true):
        profiler = MultiSourceProfiler(CELLS, [], predictor=MultiSource((-0.4, 0.4))).fit(NETWORKS[rows], measured)
        shares.append(profiler.predictor.state()["shares"])
    assert shares[0][1] > 0.9 > 0.1 > shares[1][1]


def test_saved_and_loaded_predicts_the_same(tmp_path: Path) -> None:
    profiler = MultiSourceProfiler(
        CELLS, [FIRST, SECOND], encoding="structure", predictor=MultiSource(draws=5, noise=0.1), device="target"
    )
    profiler.fit(NETWORKS[:15], TARGET.profile_batch(NETWORKS[:15]))
    profiler.save(tmp_path / "target.npz")
    loaded = MultiSourceProfiler.load(tmp_path / "target.npz", CELLS, [FIRST, SECOND])
    np.testing.assert_array_equal(loaded.profile_batch(NETWORKS), profiler.profile_batch(NETWORKS))
    np.testing.assert_array_equal(loaded.std(NETWORKS), profiler.std(NETWORKS))
    assert isinstance(loaded.predictor, MultiSource)
    assert loaded.predictor.parameters == profiler.predictor.parameters
    with pytest.raises(ProfilerError, match="other sources"):
        MultiSourceProfiler.load(tmp_path / "target.npz", CELLS, [SECOND, FIRST])
    with pytest.raises(ProfilerError, match="MultiSourceProfiler.load"):
        LearnedProfiler.load(tmp_path / "target.npz", CELLS)
    LearnedProfiler(CELLS).fit(NETWORKS[:15], TARGET.profile_batch(NETWORKS[:15])).save(tmp_path / "other.npz")
    with pytest.raises(ProfilerError, match="saved by no MultiSourceProfiler"):
        MultiSourceProfiler.load(tmp_path / "other.npz", CELLS, FIRST)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a Space first"):
        MultiSourceProfiler("space", FIRST)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a MultiSource"):
        MultiSourceProfiler(CELLS, FIRST, predictor="ridge")  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="whose choices are not those of"):
        MultiSourceProfiler(toy_space(), FIRST)
    with pytest.raises(TypeError, match="sources of a MultiSourceProfiler are profilers, got None"):
        MultiSourceProfiler(CELLS, None)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="9 of 5 networks cannot be chosen"):
        MultiSourceProfiler(CELLS, FIRST).to_measure(NETWORKS[:5], 9)
    with pytest.raises(TypeError, match="whole number, got 2.0"):
        MultiSourceProfiler(CELLS, FIRST).to_measure(NETWORKS[:5], 2.0)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="takes up to 5000 of them, got 5001; some hundred"):
        MultiSourceProfiler(CELLS, FIRST).to_measure(CELLS.sample(5001, np.random.default_rng(0)), 9)
    assert repr(MultiSourceProfiler(CELLS, [])).endswith("from no sources>")
    with pytest.raises(ProfilerError, match="positive values only"):
        MultiSourceProfiler(CELLS, FIRST).fit(NETWORKS[:5], np.arange(5.0))


def test_who_saved_a_file_is_said(tmp_path: Path) -> None:
    values = TARGET.profile_batch(NETWORKS[:15])
    LearnedProfiler(CELLS, MultiSource(draws=2)).fit(NETWORKS[:15], values).save(tmp_path / "alone.npz")
    SourceDevices(CELLS, ["first"]).fit(NETWORKS[:15], values[:, None]).save(tmp_path / "sources.npz")
    for name in ("alone.npz", "sources.npz"):
        with pytest.raises(ProfilerError, match="saved by no MultiSourceProfiler"):
            MultiSourceProfiler.load(tmp_path / name, CELLS, FIRST)
        with pytest.raises(ProfilerError, match="saved by no TransferProfiler"):
            TransferProfiler.load(tmp_path / name, CELLS, FIRST)
    MultiSourceProfiler(CELLS, FIRST, encoding="one_hot").fit(NETWORKS[:15], values).save(tmp_path / "few.npz")
    with pytest.raises(ProfilerError, match=r"other sources than \[\]"):
        MultiSourceProfiler.load(tmp_path / "few.npz", CELLS, [])


def test_an_encoding_of_several_groups_is_taken() -> None:
    """A graph has a group for its operations and one for its connections."""
    space = toy_space()
    known = space.sample(60, np.random.default_rng(0))
    values = 1.0 + TableProfiler(space).profile_batch(known)
    sources = SourceDevices(space, ["one"], "graph + one_hot").fit(known, values[:, None])
    assert spearman(sources.values(known)[:, 0], values) > 0.9
    profiler = MultiSourceProfiler(space, sources, encoding="graph + structure").fit(known[:20], values[:20])
    groups = [group.name for group in profiler.encoding.groups(space)]
    assert groups == ["source", "directions", "graph operations", "graph joined", "structure"]
    assert spearman(profiler.profile_batch(known), values) > 0.9


# -- the predictor --------------------------------------------------------------------------------------------------


def features_and_values(n: int = 12) -> tuple[MultiSourceEncoding, Floats]:
    encoding = MultiSourceEncoding([FIRST, SECOND], Structure() + OneHot())
    values = np.log(TARGET.profile_batch(NETWORKS[:n]))
    return encoding, (values - values.mean()) / values.std()


def test_a_single_kernel_is_the_textbooks() -> None:
    encoding, values = features_and_values()
    features, others = encoding.encode(NETWORKS[:12]), encoding.encode(NETWORKS[12:40])
    predictor = MultiSource(warps=(0.0,), width=1e-9, draws=1, steps=0)
    predictor.fit(features, values, np.ones(12))
    variances = predictor.prior(features.groups)
    grams = kernels(features.values, features.values, features.groups)
    covariance = np.tensordot(variances[:-1], grams, axes=1) + variances[-1] * np.eye(12)
    across = np.tensordot(variances[:-1], kernels(others.values, features.values, features.groups), axes=1)
    said = predictor.predict(others)
    np.testing.assert_allclose(said.mean, across @ np.linalg.solve(covariance, values), atol=1e-6)
    own = np.array([kernels(row[None], row[None], features.groups)[:, 0, 0] @ variances[:-1] for row in others.values])
    left = own - np.einsum("ns,st,nt->n", across, np.linalg.inv(covariance), across) + variances[-1]
    np.testing.assert_allclose(said.spread, np.sqrt(left), rtol=1e-6)


def test_samples_left_out_are_as_if_they_were_not_there() -> None:
    encoding, values = features_and_values()
    features = encoding.encode(NETWORKS[:12])
    predictor = MultiSource(warps=(0.0,), width=1e-9, draws=1, steps=0)
    predictor.fit(features, values, np.ones(12))
    apart = predictor.left_out()
    assert apart is not None
    rest = np.arange(12) != 4
    variances = predictor.prior(features.groups)
    grams = kernels(features.values, features.values, features.groups)
    covariance = np.tensordot(variances[:-1], grams, axes=1)
    own = covariance[np.ix_(rest, rest)] + variances[-1] * np.eye(11)
    assert apart.prediction.mean[4] == pytest.approx(covariance[4, rest] @ np.linalg.solve(own, values[rest]), abs=1e-6)


def test_weights_count_like_repeated_samples() -> None:
    encoding, values = features_and_values()
    features = encoding.encode(NETWORKS[:12])
    twice = np.concatenate([np.arange(12), [3]])
    weights = np.ones(12)
    weights[3] = 2.0
    once, repeated = (MultiSource(warps=(0.0,), width=1e-9, draws=1, steps=0) for _ in range(2))
    once.fit(features, values, weights)
    repeated.fit(features[twice], values[twice], np.ones(13))
    middle, scale = values[twice].mean(), values[twice].std()
    assert abs(middle) < 0.2 and abs(scale - 1.0) < 0.2  # which is why they agree only nearly
    others = encoding.encode(NETWORKS[12:60])
    assert np.corrcoef(once.predict(others).mean, repeated.predict(others).mean)[0, 1] > 0.999


def test_hyper_parameters_are_checked() -> None:
    for name in ("source", "directions", "encodings", "wide", "curved", "noise", "width"):
        with pytest.raises(ProfilerError, match=rf"MultiSource\({name}=...\) takes a number above 0"):
            MultiSource(**{name: 0.0})
    with pytest.raises(ProfilerError, match="draws"):
        MultiSource(draws=0)
    for warps in ((), 0.4, [np.nan]):
        with pytest.raises(ProfilerError, match="at least one"):
            MultiSource(warps=warps)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="warps of a MultiSource are numbers"):
        MultiSource(warps=("a",))  # type: ignore[arg-type]


def test_draws_follow_the_posterior() -> None:
    """Of one kernel and many samples without correlation, the posterior of the variance is known well."""
    rng = np.random.default_rng(0)
    target = 2.0 * rng.normal(size=150)
    kernel = 1e-9 * np.eye(150)[None]
    drawn, _ = draw_variances(
        kernel, target, np.ones(150), np.zeros(2), 2.0, draws=200, steps=10, rng=np.random.default_rng(1)
    )
    logarithms = np.log(drawn[:, 1])
    assert logarithms.mean() == pytest.approx(np.log(np.mean(target**2)), abs=0.05)
    assert logarithms.std() == pytest.approx(np.sqrt(2.0 / 150), rel=0.25)
    assert np.log(drawn[:, 0]).std() == pytest.approx(2.0, rel=0.25)  # of which the samples say nothing


def test_the_likelihood_is_the_priors_average() -> None:
    target, kernel = np.array([0.5, -1.0]), np.zeros((1, 2, 2))
    _, found = draw_variances(
        kernel, target, np.ones(2), np.zeros(2), 1e-9, draws=1, steps=0, rng=np.random.default_rng(0)
    )
    assert found == pytest.approx(-0.5 * float(target @ target), abs=1e-6)


# -- scores ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.integers(2, 30), elements=st.integers(0, 20).map(float)))
def test_scores_never_fall_and_lead_back(values: Floats) -> None:
    if np.ptp(values) == 0:
        return
    scores = Scores.of(values)
    np.testing.assert_allclose(scores.to(values), normal_scores(values), atol=1e-12)
    np.testing.assert_allclose(scores.back(scores.to(values)), values, atol=1e-9)
    wide = np.linspace(-50.0, 50.0, 301)
    assert (np.diff(scores.to(wide)) > 0).all()


def test_scores_are_normal() -> None:
    scores = normal_scores(np.random.default_rng(0).random(4000) ** 3)
    assert abs(scores.mean()) < 1e-9 and abs(scores.std() - 1.0) < 0.01
    assert normal_scores(np.array([3.0, 1.0, 3.0])).tolist() == pytest.approx([0.43072730, -0.96742157, 0.43072730])


# -- sources --------------------------------------------------------------------------------------------------------


def test_sources_are_learnt_together() -> None:
    values = np.stack([device.profile_batch(NETWORKS) for device in (FIRST, SECOND)], axis=1)
    noisy = values * np.exp(0.02 * np.random.default_rng(0).normal(size=values.shape))
    sources = SourceDevices(CELLS, ["first", "second"], "structure + work + one_hot").fit(NETWORKS[:200], noisy[:200])
    for profiler, true in zip(sources, values.T, strict=True):
        said = profiler.profile_batch(NETWORKS[200:])
        assert spearman(said, true[200:]) > 0.98
        assert np.mean(np.abs(said / true[200:] - 1.0)) < 0.03
    assert len(sources) == 2
    assert [profiler.device for profiler in sources] == ["first", "second"]


def test_saved_sources_serve_what_was_fitted_with_them(tmp_path: Path) -> None:
    values = np.stack([device.profile_batch(NETWORKS[:100]) for device in (FIRST, SECOND)], axis=1)
    sources = SourceDevices(CELLS, ["first", "second"], "structure + one_hot", name="energy", unit="mJ")
    sources.fit(NETWORKS[:100], values)
    target = MultiSourceProfiler(CELLS, sources).fit(NETWORKS[:20], TARGET.profile_batch(NETWORKS[:20]))
    sources.save(tmp_path / "sources.npz")
    target.save(tmp_path / "target.npz")
    loaded = SourceDevices.load(tmp_path / "sources.npz", nasbench201())
    np.testing.assert_array_equal(loaded.values(NETWORKS), sources.values(NETWORKS))
    assert (loaded.devices, loaded.name, loaded.unit) == (("first", "second"), "energy", "mJ")
    same = MultiSourceProfiler.load(tmp_path / "target.npz", CELLS, loaded)
    np.testing.assert_array_equal(same.profile_batch(NETWORKS), target.profile_batch(NETWORKS))


def test_the_last_bits_of_sources_do_not_matter(tmp_path: Path) -> None:
    """What is computed anew on another machine differs in these: sources are the same to nine decimals."""
    rng = np.random.default_rng(0)
    tables = rng.integers(1, 9, (len(CELLS), 5)).astype(np.float64)

    def source(tables: Floats) -> TabledProfiler:
        terms = [((choice.name,), table) for choice, table in zip(CELLS.choices, tables, strict=True)]
        return TabledProfiler(CostTable(CELLS, terms, 1.0, name="latency_ms"))

    target = MultiSourceProfiler(CELLS, source(tables)).fit(NETWORKS[:20], TARGET.profile_batch(NETWORKS[:20]))
    target.save(tmp_path / "target.npz")
    loaded = MultiSourceProfiler.load(tmp_path / "target.npz", nasbench201(), source(tables + 5e-11 * rng.random(5)))
    np.testing.assert_allclose(loaded.profile_batch(NETWORKS), target.profile_batch(NETWORKS), rtol=0.01)
    with pytest.raises(ProfilerError, match="other sources"):
        MultiSourceProfiler.load(tmp_path / "target.npz", CELLS, source(tables + 1e-6 * rng.random(5)))


def test_files_of_sources_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sources.npz"
    values = FIRST.profile_batch(NETWORKS[:30])
    with pytest.raises(OrderError, match="learnt nothing yet"):
        SourceDevices(CELLS, ["first"]).save(path)
    SourceDevices(CELLS, ["first"], "work").fit(NETWORKS[:30], values[:, None]).save(path)
    with pytest.raises(ProfilerError, match="gives other numbers"):
        SourceDevices.load(path, nasbench201(channels=8))
    with pytest.raises(ProfilerError, match="was saved for the space"):
        SourceDevices.load(path, toy_space())
    with pytest.raises(ProfilerError, match="SourceDevices.load"):
        LearnedProfiler.load(path, CELLS)
    header, arrays = files.read(path, CELLS)
    files.write(path, header, {**arrays, "answers": arrays["answers"][1:]})
    with pytest.raises(ProfilerError, match="damaged"):
        SourceDevices.load(path, CELLS)
    LearnedProfiler(CELLS).fit(NETWORKS[:30], values).save(path)
    with pytest.raises(ProfilerError, match="saved by no SourceDevices"):
        SourceDevices.load(path, CELLS)


def test_what_sources_say_is_kept_from_changes() -> None:
    sources = SourceDevices(CELLS, ["first"]).fit(NETWORKS[:50], FIRST.profile_batch(NETWORKS[:50])[:, None])
    said = sources.values(NETWORKS)
    once = said.copy()
    said[:] = 0.0
    np.testing.assert_array_equal(sources.values(NETWORKS), once)
    next(iter(sources)).profile_batch(NETWORKS)[:] = 0.0
    np.testing.assert_array_equal(sources.values(NETWORKS), once)


def test_what_sources_refuse() -> None:
    with pytest.raises(ProfilerError, match="names of their own"):
        SourceDevices(CELLS, ["one", "one"])
    with pytest.raises(TypeError, match="takes a Space first"):
        SourceDevices(None, ["one"])  # type: ignore[arg-type]
    for devices in ("one", None, [1]):
        with pytest.raises(TypeError, match="name"):
            SourceDevices(CELLS, devices)  # type: ignore[arg-type]
    sources = SourceDevices(CELLS, ["one", "two"])
    with pytest.raises(OrderError, match="learnt nothing yet"):
        sources.values(NETWORKS)
    values = np.ones((400, 2))
    with pytest.raises(ProfilerError, match=r"\(400, 2\) were expected, got \(400, 1\)"):
        sources.fit(NETWORKS, values[:, :1])
    with pytest.raises(ProfilerError, match="values of sources are numbers"):
        sources.fit(NETWORKS, [["a", "b"]] * 400)
    with pytest.raises(ProfilerError, match="2 of 400 networks .* first row 0; leave these networks out"):
        sources.fit(NETWORKS, np.where(np.eye(400, 2) > 0, np.nan, values))
    with pytest.raises(ProfilerError, match="all values of 'one' are equal"):
        sources.fit(NETWORKS, values)
    with pytest.raises(ProfilerError, match="were given candidates of"):
        sources.values(toy_space().sample(3, np.random.default_rng(0)))


# -- encodings ------------------------------------------------------------------------------------------------------


def test_encoding_scales_each_group() -> None:
    encoding = MultiSourceEncoding([FIRST, SECOND], Structure() + Blocks())
    features = encoding.encode(CELLS.sample(3000, np.random.default_rng(9)))
    assert [group.name for group in features.groups] == ["source", "directions", "structure", "blocks"]
    for group in features.groups:
        assert (features.values[:, group.columns] ** 2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.1)
    directions = features.values[:, features.groups[1].columns]
    np.testing.assert_allclose(np.cov(directions, rowvar=False), 0.5 * np.eye(2), atol=0.05)


def test_a_source_in_other_units_is_the_same() -> None:
    table = FIRST.table
    assert isinstance(table, CostTable)
    terms = [
        (tuple(CELLS.choices[column].name for column in scope), 1000.0 * values)
        for scope, values in table.tables.items()
    ]
    thousand = TabledProfiler(CostTable(CELLS, terms, 1000.0 * table.constant, name="us"))
    one, other = (MultiSourceEncoding([source], OneHot()).encode(NETWORKS).values for source in (FIRST, thousand))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_default_encoding_by_what_a_space_describes() -> None:
    assert str(multi_source_encoding(CELLS)) == "structure + work + one_hot"
    plain = Space([Choice("a", (1, 2)), Choice("b", ("x", "y"))])
    assert str(multi_source_encoding(plain)) == "structure + one_hot"


def structure_of(text: dict[str, str]) -> dict[str, float]:
    names = Structure().names(CELLS)
    architecture = {f"edge_{edge}": text.get(edge, "none") for edge in ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")}
    return dict(zip(names, Structure().encode(CELLS.candidates([architecture])).values[0].tolist(), strict=True))


def test_structure_tells_dead_edges_and_depth() -> None:
    found = structure_of({"0_1": "nor_conv_3x3", "1_2": "nor_conv_3x3", "2_3": "nor_conv_1x1", "0_3": "skip_connect"})
    assert found["nor_conv_3x3"] == found["live nor_conv_3x3"] == found["path of nor_conv_3x3"] == 2
    assert found["path of nor_conv_1x1, nor_conv_3x3"] == 3 and found["live"] == 4
    dead = structure_of({"0_1": "nor_conv_3x3", "1_2": "nor_conv_3x3", "0_3": "skip_connect"})
    assert dead["nor_conv_3x3"] == 2 and dead["live nor_conv_3x3"] == 0 and dead["path of nor_conv_3x3"] == 0
    assert dead["live"] == 1 and dead["live skip_connect"] == 1
    assert set(structure_of({}).values()) == {0.0}


def test_structure_of_a_chain_has_no_paths() -> None:
    assert not any("path" in name for name in Structure().names(fbnet()))


def test_blocks_are_additive_and_alike_blocks_are_alike() -> None:
    space = fbnet(input_size=64)
    networks = space.sample(50, np.random.default_rng(0))
    weights = np.random.default_rng(1).normal(size=Blocks().width(space))
    table = CostTable(space, Blocks().terms(space, weights), 0.0, name="sum")
    np.testing.assert_allclose(table.evaluate(networks), Blocks().encode(networks).values @ weights, atol=1e-9)

    def of(operator: str, layer: int) -> Floats:
        base = {name: "skip" for name in space.names}
        one = space.candidates([base, {**base, f"layer{layer}.op": operator}])
        first, second = Blocks().encode(one).values
        return second - first

    same = of("k3_e6", 3) @ of("k3_e6", 4)
    assert same == pytest.approx(of("k3_e6", 3) @ of("k3_e6", 3), rel=1e-3)  # same stage, same work
    assert of("k3_e6", 3) @ of("k5_e6", 3) > of("k3_e6", 3) @ of("k3_e1", 20)


def test_blocks_need_layers() -> None:
    with pytest.raises(ProfilerError, match="describes its layers"):
        Blocks().plan(toy_space())


def test_blocks_without_work_have_no_columns() -> None:
    space = Space([Choice("a", (1, 2)), Choice("b", (1, 2))], parts=idle)
    assert Blocks().encode(space.sample(5, np.random.default_rng(0))).values.shape == (5, 0)


def test_candidates_of_an_equal_space_are_taken() -> None:
    other = nasbench201()
    same = Candidates.of(other, NETWORKS.codes)
    values = np.stack([FIRST.profile_batch(NETWORKS)], axis=1)
    sources = SourceDevices(CELLS, ["first"]).fit(same, values)
    np.testing.assert_allclose(sources.values(same), sources.values(NETWORKS))
