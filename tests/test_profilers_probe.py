from __future__ import annotations

import builders
import numpy as np
import pytest
import torch
from torch import nn

from nasmw import Choice, Space
from nasmw.profilers import (
    ActivationsProfiler,
    FlopsProfiler,
    ParamsProfiler,
    PeakMemoryProfiler,
    count,
    count_parameters,
)
from nasmw.profilers.discover import FIRST_PROBES, FLIPPED, VERIFIED, discover
from nasmw.profilers.explain import ABSENT, Explainer, Leaf, NotDecomposableError, Split, restrict
from nasmw.profilers.probe import Pool, Sample, find_anchors, segments


def made(kind, space):
    if kind == "params":
        return ParamsProfiler(space, progress=False)
    profilers = {"macs": FlopsProfiler, "activations": ActivationsProfiler, "memory": PeakMemoryProfiler}
    return profilers[kind](space, builders.IMAGE, progress=False)


def counted(kind, profiler, space, architecture):
    net = space.build(architecture)
    if kind == "params":
        return count_parameters(net)
    if kind == "macs":
        return count(net, profiler.example_input.for_architecture(architecture, profiler.resolution)).macs
    return profiler._count(net, architecture)


def check(kind, name, networks):
    space = builders.SPACES[name]()
    profiler = made(kind, space)
    assert profiler.table is not None
    batch = space.sample(networks, np.random.default_rng(99))
    values = profiler.profile_batch(batch).tolist()
    assert values == [counted(kind, profiler, space, architecture) for architecture in batch]
    return profiler


@pytest.mark.parametrize("name", ["flat", "transformer"])
def test_parameters_equal_the_direct_count(name):
    check("params", name, 100)


def test_macs_equal_the_direct_count():
    check("macs", "flat", 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", builders.SPACES)
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_thousand_networks(kind, name):
    check(kind, name, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", builders.SPACES)
@pytest.mark.parametrize("kind", ["activations", "memory"])
def test_activations_and_memory(kind, name):
    check(kind, name, 100)


@pytest.mark.slow
def test_tables_stay_small():
    profiler = made("params", builders.adapting_space())
    assert max(table.size for table in profiler.table.tables.values()) <= 4 * 4**4
    assert len(profiler.table.tables) < 30


# -- naming -----------------------------------------------------------------------------------------------------------


def test_segments_are_anchors_after_which_modules_were_made():
    reads = [(0, 0), (1, 0), (2, 3), (3, 3), (1, 5), (4, 6)]
    assert segments(reads, frozenset(range(5))) == [(1, 0), (3, 3), (1, 5), (4, 6)]
    assert segments(reads, frozenset({0, 2, 3, 4})) == [(0, 0), (3, 3), (4, 6)]
    assert segments([], frozenset()) == []


def test_a_choice_read_in_several_places_is_no_anchor():
    codes = np.zeros(3, dtype=np.uint8)
    once = Sample(codes, ((0, 0), (1, 2), (2, 4)), {})
    twice = Sample(codes, ((0, 0), (1, 2), (0, 3), (2, 4)), {})
    without_a_module_between = Sample(codes, ((0, 0), (1, 2), (0, 3), (2, 3)), {})
    assert find_anchors([once], 3) == {0, 1, 2}
    assert find_anchors([once, twice], 3) == {1, 2}
    assert find_anchors([once, without_a_module_between], 3) == {0, 1, 2}


def test_a_pool_leaves_torch_as_it_was():
    before = nn.Module.__init__, nn.init.zeros_, nn.init.ones_
    space = builders.flat_space()
    Pool(space, None, None, ("params",)).sample(space.at([5]).codes[0])
    assert (nn.Module.__init__, nn.init.zeros_, nn.init.ones_) == before
    assert torch.empty(1).device.type == "cpu"


# -- discovering ------------------------------------------------------------------------------------------------------


def build_shifting(architecture):
    """Blocks in one flat Sequential whose optional layers move those behind them."""
    channels, layers = 8, []
    for stage in range(3):
        for block in range(architecture[f"depth{stage}"]):
            kernel, wide, extra = (architecture[f"{part}{stage}{block}"] for part in ("kernel", "wide", "extra"))
            hidden = channels * wide
            layers += [
                *([nn.Conv2d(channels, hidden, 1)] if wide > 1 else []),
                nn.Conv2d(hidden, hidden, kernel, groups=hidden),
                *([nn.Conv2d(hidden, hidden, 1), nn.Sigmoid()] if extra else []),
                nn.Conv2d(hidden, architecture[f"width{stage}"], 1),
            ]
            channels = architecture[f"width{stage}"]
    return nn.Sequential(*layers, nn.Linear(channels, 10))


def shifting_space():
    choices = []
    for stage in range(3):
        choices += [Choice(f"width{stage}", (8, 12, 16)), Choice(f"depth{stage}", (1, 2))]
        for block in range(2):
            when = {f"depth{stage}": 2} if block else None
            choices += [Choice(f"kernel{stage}{block}", (3, 5), when), Choice(f"wide{stage}{block}", (1, 2, 3), when)]
            choices.append(Choice(f"extra{stage}{block}", (False, True), when))
    return Space(choices, build_shifting, name="shifting")


def test_few_networks_tell_how_layers_are_named():
    space = shifting_space()
    found = discover(Pool(space, None, None, ("params",)), "params", progress=False)
    assert found.probes < FIRST_PROBES + VERIFIED + FLIPPED + 400
    assert max(table.size for table in found.table.tables.values()) <= 200
    batch = space.sample(50, np.random.default_rng(5))
    assert found.table.evaluate(batch).tolist() == [count_parameters(space.build(each)) for each in batch]


def test_a_way_of_naming_layers_has_a_budget(monkeypatch):
    def found():
        return discover(Pool(builders.flat_space(), None, None, ("params",)), "params", progress=False)

    monkeypatch.setattr("nasmw.profilers.discover.BUDGETS", (3, 2_000))
    assert found().verified == VERIFIED
    monkeypatch.setattr("nasmw.profilers.discover.BUDGETS", (3, 5))
    with pytest.raises(NotDecomposableError, match=r"by reads: .* no end; layers named by paths: .* no end"):
        found()


# -- explaining -------------------------------------------------------------------------------------------------------


def explained(space, function, n=80, seed=0):
    """Explain a function of an architecture from random observations; return the tree and the codes observed later."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(len(choice.options), size=n) for choice in space.choices]
    codes = space.canonical(np.stack(columns, axis=1).astype(space.dtype))
    asked = []

    def observe(row):
        asked.append(row)
        return function(space.decode(row))

    values = np.array([function(space.decode(row)) for row in codes], dtype=np.int64)
    return Explainer(space, codes).explain(values, observe), asked


def test_a_constant_needs_no_choice():
    tree, asked = explained(builders.flat_space(), lambda architecture: 7)
    assert isinstance(tree, Leaf) and tree.scope == () and tree.values == {(): 7} and not asked


def test_one_choice_is_found():
    space = builders.stages_space()
    tree, _ = explained(space, lambda architecture: architecture["stage1.width"])
    assert isinstance(tree, Leaf) and tree.scope == (space.column("stage1.width"),)


def test_the_product_of_two_choices_is_found():
    space = builders.stages_space()
    tree, _ = explained(space, lambda a: a["stage0.width"] * a["resolution"])
    assert isinstance(tree, Leaf)
    assert tree.scope == tuple(sorted((space.column("stage0.width"), space.column("resolution"))))


def test_what_depends_on_the_last_block_is_split_by_depth():
    space = builders.adapting_space()

    def width(architecture):
        return architecture[f"stage0.block{architecture['stage0.depth'] - 1}.width"]

    tree, _ = explained(space, width, n=300)
    assert isinstance(tree, Split) and tree.column == space.column("stage0.depth")
    for code, case in tree.cases.items():
        assert case.scope == (space.column(f"stage0.block{code}.width"),)
    assert restrict(tree, tree.column, 0) is tree.cases[0]
    assert restrict(tree, tree.column, 9) is None


def test_a_rare_condition_is_found_by_bisection():
    space = builders.flat_space()
    names = [f"op{block}" for block in range(5)]

    def rare(architecture):
        return int([architecture[name] for name in names[:3]] == ["3", "5", "pool"])

    tree, asked = explained(space, rare, n=400)
    assert asked
    seen = set()

    def columns(node):
        if isinstance(node, Split):
            seen.add(node.column)
            for case in node.cases.values():
                columns(case)

    columns(tree)
    assert seen == {space.column(name) for name in names[:3]}


def test_absent_values_are_no_observations():
    space = builders.flat_space()
    tree, _ = explained(space, lambda a: a.get("repeat0", ABSENT), n=200)
    assert isinstance(tree, Split) and tree.column == space.column("op0")
    assert sorted(tree.cases) == [2, 3]
    for case in tree.cases.values():
        assert case.scope == (space.column("repeat0"),)
        assert set(case.values.values()) == {1, 2, 3}
