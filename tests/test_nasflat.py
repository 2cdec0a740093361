"""The graph network that learns to order architectures on source devices, and is tuned on a new one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasmw import Candidates, Chain, Filter, Search, Space
from nasmw.candidates import Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profilers.learned import (
    GraphEncoding,
    GraphNetwork,
    GraphSources,
    LayerWork,
    LearnedProfiler,
    PredictorStore,
    make_encoding,
)
from nasmw.profilers.learned.graph_encoding import JOINED, OPERATIONS, WORK
from nasmw.profilers.learned.graph_network import _rank_correlation
from nasmw.profilers.learned.graphs import graphs_of
from nasmw.profilers.learned.monotone import Monotone
from nasmw.spaces import compofa, nasbench201
from nasmw.strategies import Random
from nasmw.testing import ProfilerContract, TableProfiler, toy_space

TINY: dict[str, Any] = {"width": 8, "refine": 1, "layers": 1, "head": 8, "steps": 6, "rows": 16, "tuning_steps": 4}
SMALL: dict[str, Any] = {
    "width": 16,
    "refine": 1,
    "layers": 2,
    "head": 32,
    "steps": 100,
    "rows": 64,
    "rate": 5e-3,
    "tuning_steps": 25,
    "tuning_rate": 3e-3,
}
CELLS = nasbench201()
NEW = "slow to start"


def devices(networks: Candidates) -> dict[str, Floats]:
    """Return made-up latencies of cells: on one device convolutions take time, on the other each operation alike."""
    work = LayerWork().encode(networks).values
    names = LayerWork().names(CELLS)
    macs, elements = (work[:, names.index(name)] for name in ("macs", "elements"))
    graphs = graphs_of(networks)
    kinds = np.array(graphs.vocabulary)[graphs.operations]
    launches = (kinds == "avg_pool_3x3").sum(axis=1) + 0.4 * (kinds == "nor_conv_1x1").sum(axis=1)
    return {
        "busy": 1.0 + 5.0 * macs,
        "wide": 2.0 + 3.0 * elements,
        "balanced": 1.0 + launches + 3.0 * elements,
        "slow to start": 1.0 + launches + 0.2 * macs,
    }


@pytest.fixture(scope="module")
def cells() -> Candidates:
    return CELLS.sample(300, np.random.default_rng(0))


@pytest.fixture(scope="module")
def sources(cells: Candidates) -> GraphSources:
    measured = {name: values for name, values in devices(cells).items() if name != NEW}
    return GraphSources(CELLS, "graph(work)", GraphNetwork(**SMALL)).fit(cells, measured)


class TestGraphNetworkContract(ProfilerContract):
    def make(self, space: Space) -> LearnedProfiler:
        known = space.sample(30, np.random.default_rng(7))
        measured = TableProfiler(space).profile_batch(known)
        made = GraphSources(space, "graph", GraphNetwork(**TINY)).fit(known, {"one": measured, "two": -measured})
        return made.on("three").fit(known[:12], 2.0 * measured[:12])


def test_the_graph_is_all_in_the_row(cells: Candidates) -> None:
    features = GraphEncoding("work").encode(cells)
    groups = {group.name: group for group in features.groups}
    assert list(groups) == [OPERATIONS, JOINED, WORK]
    assert len(GraphEncoding("work").names(CELLS)) == features.values.shape[1]
    graphs = graphs_of(cells)
    one_hot = features.values[:, groups[OPERATIONS].columns].reshape(len(cells), 8, -1)
    assert np.array_equal(one_hot.argmax(axis=2), graphs.operations) and (one_hot.sum(axis=2) == 1).all()
    joined = features.values[:, groups[JOINED].columns].reshape(len(cells), 8, 8)
    assert np.array_equal(joined, graphs.adjacency)


@pytest.mark.parametrize("space", [CELLS, compofa(resolutions=(160, 224))], ids=lambda space: space.name)
def test_costs_of_nodes_add_up_to_those_of_the_network(space: Space) -> None:
    networks = space.sample(40, np.random.default_rng(1))
    encoding = GraphEncoding("work")
    plan = encoding.plan(space)
    columns = encoding.groups(space)[2].columns
    shape = len(networks), len(plan.nodes), len(plan.amounts)
    values = encoding.encode(networks).values[:, columns].reshape(shape) * plan.size + plan.centre
    macs = values[..., plan.amounts.index("macs")].sum(axis=1)
    wanted = space.tables["macs"](space, None).evaluate(networks)
    assert np.ptp(macs) > 0 and np.allclose(np.ptp(wanted - macs), 0.0, atol=1e-6 * wanted.max())  # but for the ends


def test_a_graph_joined_with_others_keeps_its_groups() -> None:
    encoding = make_encoding("graph(work) + counts")
    assert str(encoding) == "graph(work) + counts"
    assert [group.name for group in encoding.groups(CELLS)] == [OPERATIONS, JOINED, WORK, "counts"]
    assert encoding.groups(CELLS)[-1].stop == encoding.width(CELLS)


def test_twenty_measurements_order_a_device_better_than_macs(cells: Candidates, sources: GraphSources) -> None:
    new = CELLS.sample(400, np.random.default_rng(5))
    truth = devices(new)[NEW]
    tuned = sources.on(NEW).fit(cells[:20], devices(cells)[NEW][:20])
    macs = CELLS.tables["macs"](CELLS, None).evaluate(new)
    said = _rank_correlation(tuned.profile_batch(new), truth)
    assert said > 0.8 > _rank_correlation(np.asarray(macs, dtype=float), truth) + 0.2


def test_sources_help(cells: Candidates, sources: GraphSources) -> None:
    new = CELLS.sample(400, np.random.default_rng(5))
    values, truth = devices(cells)["busy"][:10], devices(new)["busy"]
    alone = LearnedProfiler(CELLS, GraphNetwork(**{**SMALL, "steps": 25}), "graph(work)").fit(cells[:10], values)
    tuned = sources.on("like the busy one").fit(cells[:10], values)
    scores = [_rank_correlation(profiler.profile_batch(new), truth) for profiler in (tuned, alone)]
    assert scores[0] > 0.95 and scores[0] > scores[1]


def test_the_new_device_takes_the_embedding_of_the_closest_source(cells: Candidates, sources: GraphSources) -> None:
    busy = sources.predictor.fresh(tuning_steps=1)
    for number, name in enumerate(("busy", "wide")):
        values = devices(cells)[name][:40]
        features = sources.encoding.encode(cells[:40])
        busy.fit(features, (values - values.mean()) / values.std(), np.ones(40))
        assert busy._own["devices"].tolist() == [number]


def test_values_are_milliseconds_and_a_filter_can_use_them(cells: Candidates, sources: GraphSources) -> None:
    profiler = sources.on("tablet").fit(cells[:40], 10.0 * devices(cells)["wide"][:40])
    truth = 10.0 * devices(cells[40:])["wide"]
    said = profiler.profile_batch(cells[40:])
    assert np.mean(np.abs(said / truth - 1.0)) < 0.1
    assert (profiler.std(cells[40:]) > 0).all()
    low, high = profiler.interval(cells[40:])
    assert 0.75 < np.mean((low <= truth) & (truth <= high)) <= 1.0
    limit = float(np.median(said))
    chain = Chain(Random(), Filter(profiler <= limit))
    result = Search(CELLS, chain, lambda trial: 1.0, profilers=[profiler]).run(trials=5)
    assert all(profiler.profile(trial.architecture) <= limit for trial in result.trials)


def test_the_same_seed_gives_the_same_and_leaves_torch_alone(cells: Candidates) -> None:
    before = torch.random.get_rng_state()
    measured = devices(cells)
    made = []
    for seed in (0, 0, 1):
        network = GraphNetwork(**TINY, seed=seed)
        own = GraphSources(CELLS, "graph", network).fit(cells[:50], {"busy": measured["busy"][:50]})
        made.append(own.on("new").fit(cells[:10], measured["wide"][:10]).profile_batch(cells))
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("embedding", ["operation", "network", "none"])
@pytest.mark.parametrize("refine", [0, 1])
def test_rows_do_not_depend_on_each_other(cells: Candidates, embedding: str, refine: int) -> None:
    network = GraphNetwork(**{**TINY, "refine": refine, "embedding": embedding})
    measured = devices(cells)
    own = GraphSources(CELLS, "graph + counts", network).fit(
        cells[:50], {name: measured[name][:50] for name in measured}
    )
    profiler = own.on("new").fit(cells[:10], measured["wide"][:10])
    order = np.random.default_rng(0).permutation(len(cells))
    values = profiler.profile_batch(cells)
    assert np.allclose(profiler.profile_batch(cells[order]), values[order], rtol=1e-12)
    assert np.allclose(profiler.profile_batch(cells[7:8]), values[7:8], rtol=1e-12)


def test_without_an_embedding_all_sources_have_one_order(cells: Candidates) -> None:
    network = GraphNetwork(**{**TINY, "embedding": "none"})
    features = GraphEncoding().encode(cells)
    network.learn_sources(features, np.stack(list(devices(cells).values()), axis=1))
    assert network._source["devices.weight"].shape[0] == 1


def test_missing_measurements_are_left_out(cells: Candidates) -> None:
    measured = devices(cells)
    holes = {
        name: np.where(np.arange(300) % 3 == number, np.nan, values)
        for number, (name, values) in enumerate(measured.items())
    }
    own = GraphSources(CELLS, "graph", GraphNetwork(**TINY)).fit(cells, holes)
    assert all(np.isfinite(array).all() for array in own.predictor._source.values())


def test_files_keep_what_was_learnt_of_the_sources(cells: Candidates, tmp_path: Path) -> None:
    values = devices(cells)[NEW]
    measured = {name: devices(cells)[name] for name in ("busy", "wide")}
    sources = GraphSources(CELLS, "graph(work)", GraphNetwork(**TINY)).fit(cells, measured)
    profiler = sources.on("new").fit(cells[:12], values[:12])
    path = PredictorStore(tmp_path).save(profiler)
    loaded = LearnedProfiler.load(path, CELLS)
    assert np.array_equal(loaded.profile_batch(cells), profiler.profile_batch(cells))
    assert np.array_equal(loaded.std(cells), profiler.std(cells))
    for own in (loaded, copy.deepcopy(profiler)):
        assert np.array_equal(
            own.fit(cells[:15], values[:15]).profile_batch(cells),
            profiler.fit(cells[:15], values[:15]).profile_batch(cells),
        )

    sources.save(tmp_path / "sources.npz")
    again = GraphSources.load(tmp_path / "sources.npz", CELLS)
    assert again.devices == ("busy", "wide")
    assert np.array_equal(
        again.on("new").fit(cells[:15], values[:15]).profile_batch(cells), loaded.profile_batch(cells)
    )
    with pytest.raises(ProfilerError, match="saved by another class"):
        LearnedProfiler.load(tmp_path / "sources.npz", CELLS)
    with pytest.raises(ProfilerError, match="saved by no GraphSources"):
        GraphSources.load(path, CELLS)
    with pytest.raises(ProfilerError, match="gives other"):
        GraphSources.load(tmp_path / "sources.npz", nasbench201(channels=8, input_size=16))


def test_an_increasing_function_goes_through_samples() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40)
    values = np.exp(scores) + 0.1 * rng.normal(size=40)
    function = Monotone.fit(scores, values, np.ones(40))
    dense = np.linspace(-6.0, 6.0, 500)
    assert (np.diff(function(dense)) > 0).all()
    assert np.mean(np.abs(function(scores) - values)) < 0.1
    fallen = Monotone.fit(scores, -values, np.ones(40))
    assert (np.diff(fallen(dense)) > 0).all() and np.isclose(fallen(scores).mean(), -values.mean(), atol=0.5)
    flat = Monotone.fit(np.zeros(5), np.arange(5.0), np.ones(5))(dense)
    assert (np.diff(flat) > 0).all() and np.abs(flat - 2.0).max() < 0.1  # equal scores do not say how steep it is


def test_errors_say_what_is_wanted(cells: Candidates) -> None:
    values = devices(cells)["busy"]
    with pytest.raises(OrderError, match="has learnt nothing yet"):
        GraphSources(CELLS).on("new")
    with pytest.raises(ProfilerError, match="values by device"):
        GraphSources(CELLS).fit(cells, {})
    with pytest.raises(ProfilerError, match="one number for each of 300"):
        GraphSources(CELLS).fit(cells, {"busy": values[:3]})
    with pytest.raises(ProfilerError, match="the source 'idle' has no two values that differ"):
        GraphSources(CELLS).fit(cells, {"busy": values, "idle": np.ones(300)})
    with pytest.raises(ProfilerError, match="the source number 0 has no two values"):
        GraphNetwork().learn_sources(GraphEncoding().encode(cells), np.ones((300, 1)))
    with pytest.raises(ProfilerError, match="no two values that differ"):
        GraphSources(CELLS).fit(cells[:0], {"busy": values[:0]})
    with pytest.raises(ProfilerError, match="values of 'busy' are numbers"):
        GraphSources(CELLS).fit(cells, {"busy": ["a"] * 300})
    with pytest.raises(ProfilerError, match="learns from graphs"):
        GraphSources(CELLS, "slots")
    with pytest.raises(ProfilerError, match="give the encoding 'graph'"):
        LearnedProfiler(CELLS, "graph_network", "slots").fit(cells, values)
    with pytest.raises(ProfilerError, match="takes 'work' or nothing"):
        GraphEncoding("works")
    with pytest.raises(ProfilerError, match="needs a space that describes its layers"):
        GraphSources(toy_space(), "graph(work)")
    with pytest.raises(ProfilerError, match=r"embedding=\.\.\.\) is one of"):
        GraphNetwork(embedding="all")
    with pytest.raises(TypeError, match="takes a GraphNetwork"):
        GraphSources(CELLS, predictor="mlp")  # type: ignore[arg-type]
    assert str(GraphSources(toy_space()).encoding) == "graph"
