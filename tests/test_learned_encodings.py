"""Encodings of architectures: what the columns say, that they compose, and that additive ones are sums of tables."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest

from nasmw import Choice, CostTable, Space, spaces
from nasmw.errors import ProfilerError
from nasmw.profilers.learned import (
    Costs,
    Counts,
    Given,
    Interaction,
    OneHot,
    Slots,
    default_encoding,
    graphs_of,
    make_encoding,
)
from nasmw.testing import toy_space


def small_ofa() -> Space:
    return spaces.ofa_mobilenetv3(resolutions=(128, 160, 224))


SPACES = {
    "toy": toy_space,
    "ofa": small_ofa,
    "fbnet": spaces.fbnet,
    "nasbench201": spaces.nasbench201,
    "darts": spaces.darts,
    "autoformer": spaces.autoformer,
}
ADDITIVE = ["one_hot", "slots", "counts", "costs", "one_hot + counts", "slots + costs"]


@pytest.fixture(params=list(SPACES))
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]()


@pytest.mark.parametrize("text", [*ADDITIVE, "costs(log)", "adjacency", "counts + adjacency"])
def test_columns_have_names_and_rows_do_not_depend_on_each_other(space: Space, text: str) -> None:
    encoding = make_encoding(text)
    if not space.tables and "costs" in text:
        with pytest.raises(ProfilerError, match="knows no costs of its networks"):
            encoding.plan(space)
        return
    batch = space.sample(40, np.random.default_rng(0))
    features = encoding.encode(batch)
    names = encoding.names(space)
    assert features.values.shape == (40, len(names)) == (40, encoding.width(space))
    assert len(set(names)) == len(names)
    assert np.isfinite(features.values).all() and np.abs(features.values).max() <= 50
    assert np.array_equal(encoding.encode(batch[7]).values[0], features.values[7])
    assert [group.name for group in features.groups] == text.split(" + ")
    assert features.groups[0].start == 0 and features.groups[-1].stop == len(names)


@pytest.mark.parametrize("text", ADDITIVE)
def test_an_additive_encoding_is_a_sum_of_tables(space: Space, text: str) -> None:
    encoding = make_encoding(text)
    if not space.tables and "costs" in text:
        return
    weights = np.random.default_rng(1).normal(size=encoding.width(space))
    table = CostTable(space, encoding.terms(space, weights))
    batch = space.sample(200, np.random.default_rng(2))
    assert np.allclose(table.evaluate(batch), encoding.encode(batch).values @ weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("text", ["slots * resolution^2", "(one_hot + costs) * resolution^-1", "counts * stage0.depth"])
def test_an_interaction_is_a_sum_of_tables(text: str) -> None:
    space = small_ofa()
    encoding = make_encoding(text)
    weights = np.random.default_rng(1).normal(size=encoding.width(space))
    batch = space.sample(100, np.random.default_rng(2))
    values = encoding.encode(batch).values
    table = CostTable(space, encoding.terms(space, weights))
    assert np.allclose(table.evaluate(batch), values @ weights, rtol=0, atol=1e-9)


def test_one_hot_has_zeros_where_a_choice_is_inactive() -> None:
    space = toy_space()
    batch = space.sample(100, np.random.default_rng(0))
    values = OneHot().encode(batch).values
    names = OneHot().names(space)
    active = space.active(batch.codes)
    assert np.array_equal(values.sum(axis=1), active.sum(axis=1))
    for column, choice in enumerate(space.choices):
        own = values[:, [names.index(f"{choice.name}={option}") for option in choice.options]]
        assert np.array_equal(own.argmax(axis=1)[active[:, column]], batch.codes[active[:, column], column])
        assert not own[~active[:, column]].any()


def test_slots_join_what_stands_under_one_prefix_and_condition() -> None:
    space = small_ofa()
    assert Slots().width(space) == 3 + 5 * (3 + 4 * 9)
    assert "stage1.block2.kernel=5 stage1.block2.expand=6" in Slots().names(space)
    values = Slots().encode(space.sample(30, np.random.default_rng(0))).values
    depths = values[:, [Slots().names(space).index(f"stage0.depth={d}") for d in (2, 3, 4)]] @ [2, 3, 4]
    first = [i for i, name in enumerate(Slots().names(space)) if name.startswith("stage0.block")]
    assert np.array_equal(values[:, first].sum(axis=1), depths)


def test_an_interaction_multiplies_by_a_power_of_the_share_of_the_greatest() -> None:
    space = small_ofa()
    batch = space.sample(20, np.random.default_rng(0))
    share = np.array([architecture["resolution"] for architecture in batch]) / 224
    values = Interaction(Slots(), "resolution", 2).encode(batch).values
    assert np.allclose(values, Slots().encode(batch).values * (share**2)[:, None])


def test_costs_add_up_to_the_costs_of_the_networks() -> None:
    space = small_ofa()
    batch = space.sample(50, np.random.default_rng(0))
    values, names = Costs().encode(batch).values * Costs().plan(space).scale, Costs().names(space)
    for metric in ("macs", "params"):
        table = space.tables[metric](space, None)
        total = values[:, names.index(metric)]
        assert np.allclose(total + table.constant, table.evaluate(batch), rtol=1e-12)
        stages = sum(values[:, names.index(f"{metric} stage{stage}")] for stage in range(5))
        assert np.allclose(stages, total, rtol=1e-12)
        kernels = sum(values[:, names.index(f"{metric} kernel={kernel}")] for kernel in (3, 5, 7))
        assert np.allclose(kernels, total, rtol=1e-12)


def test_costs_take_tables_of_ones_own() -> None:
    space = toy_space()
    table = CostTable(space, [(("width",), [1, 2, 3, 4]), (("block0.op",), [5, 1])], name="own")
    costs = Costs(tables={"own": table})
    batch = space.sample(10, np.random.default_rng(0))
    assert costs.names(space)[0] == "own"
    assert np.allclose(costs.encode(batch).values[:, 0] * 9, table.evaluate(batch))
    joined = OneHot() + costs
    assert joined.encode(batch).values.shape[1] == joined.width(space)
    other = Costs(tables={"own": table * 3 + CostTable(space, [(("depth",), [1, 5, 9])])})
    assert not np.array_equal(other.encode(batch).values, costs.encode(batch).values)
    with pytest.raises(ProfilerError, match="from a CostTable of"):
        Costs(tables={"own": 3}).plan(space)
    with pytest.raises(ProfilerError, match="take 'log' or nothing"):
        make_encoding("costs(square)")


def test_counts_count_active_choices_of_a_kind() -> None:
    space = small_ofa()
    batch = space.sample(20, np.random.default_rng(0))
    names, values = Counts().names(space), Counts().encode(batch).values
    for row, architecture in enumerate(batch):
        sevens = sum(value == 7 for name, value in architecture.items() if name.endswith("kernel"))
        assert values[row, names.index("number of kernel=7")] == sevens


def test_a_cell_is_a_graph() -> None:
    space = spaces.nasbench201()
    cell = {name: "nor_conv_3x3" for name in space.names} | {"edge_0_1": "none", "edge_2_3": "skip_connect"}
    graphs = graphs_of(space.candidates([cell]))
    node = graphs.nodes.index
    joined = graphs.adjacency[0]
    assert graphs.vocabulary[graphs.operations[0, node("edge_2_3")]] == "skip_connect"
    assert joined[node("edge_0_2"), node("edge_2_3")] and joined[node("edge_2_3"), node("output")]
    assert joined[node("input"), node("edge_0_3")] and not joined[node("input"), node("edge_1_2")]
    assert not joined[node("edge_0_1")].any() and not joined[:, node("edge_0_1")].any()
    assert not np.tril(joined).any()


def test_cells_that_read_two_nodes_are_graphs() -> None:
    space = spaces.darts()
    architecture = next(iter(space.sample(1, np.random.default_rng(3))))
    graphs = graphs_of(space.candidates([architecture]))
    joined, node = graphs.adjacency[0], graphs.nodes.index
    assert joined[node("normal.input0"), node("normal.node2.op0")]
    assert joined[node("normal.input1"), node("normal.node2.op1")]
    first, second = architecture["reduce.node4.inputs"]
    for number, read in enumerate((first, second)):
        sources = np.flatnonzero(joined[:, node(f"reduce.node4.op{number}")])
        names = [graphs.nodes[source] for source in sources]
        expected = [f"reduce.input{read}"] if read < 2 else [f"reduce.node{read}.op0", f"reduce.node{read}.op1"]
        assert names == [name for name in expected if architecture.get(name) != "none"]


def test_a_chain_skips_what_is_inactive() -> None:
    space = toy_space()
    graphs = graphs_of(space.candidates([{"width": 8, "depth": 1, "block0.op": "pool"}]))
    present = graphs.adjacency[0].any(axis=0) | graphs.adjacency[0].any(axis=1)
    absent = np.array([graphs.vocabulary[number] == "absent" for number in graphs.operations[0]])
    assert np.array_equal(present, ~absent)
    assert (graphs.adjacency[0].sum(axis=1)[:-1] == ~absent[:-1]).all()


def test_texts_are_read_and_written() -> None:
    for text in ("one_hot", "slots + slots * resolution^2", "(one_hot + costs(log)) * depth^-0.5 + counts"):
        assert str(make_encoding(text)) == text
        assert make_encoding(make_encoding(text)) == make_encoding(text)
    assert OneHot() & Costs() == make_encoding("one_hot + costs") == OneHot() + Costs()
    assert make_encoding("one_hot") != make_encoding("slots")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one_hott", "did you mean 'one_hot'"),
        ("one_hot +", "the name of an encoding is missing"),
        ("one_hot slots", "'slots' was not expected"),
        ("(one_hot", r"a '\)' is missing"),
        ("one_hot * 3", "the name of a choice was expected"),
        ("one_hot * depth^x", "a power was expected"),
        ("slots(log)", "does not take the arguments"),
        ("one_hot + one_hot", "joined with itself"),
        ("", "is missing"),
    ],
)
def test_texts_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ProfilerError, match=message):
        make_encoding(text)


def test_encodings_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match="an Encoding or a text"):
        make_encoding(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes Candidates of a Space"):
        OneHot().encode([{"width": 8}])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="multiplies an Encoding"):
        Interaction("one_hot", "width")  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="a finite number but 0"):
        Interaction(OneHot(), "width", 0)


@pytest.mark.parametrize(("choice", "message"), [("block0.op", "positive numbers"), ("widht", "did you mean 'width'")])
def test_an_interaction_needs_a_numeric_choice(choice: str, message: str) -> None:
    with pytest.raises(ProfilerError, match=message):
        Interaction(OneHot(), choice).plan(toy_space())


def test_given_numbers() -> None:
    space = toy_space()
    known = space.sample(30, np.random.default_rng(0))
    numbers = np.random.default_rng(1).normal(5.0, 3.0, (30, 2))
    from_pair = Given("proxies", (known.codes, numbers), ["synflow", "jacov"])
    from_mapping = Given("proxies", dict(zip(known.row_keys(), numbers.tolist(), strict=True)), ["synflow", "jacov"])
    assert from_pair.names(space) == ("synflow", "jacov")
    assert from_mapping.encode(known[4:6]).values.shape == (2, 2)
    assert abs(from_pair.encode(known).values[:, 0].mean()) < 0.5
    function = Given("depth", lambda batch: [[architecture["depth"]] for architecture in batch], ["depth"])
    joined = make_encoding("one_hot + depth", {"depth": function})
    assert np.array_equal(joined.encode(known).values[:, -1], [architecture["depth"] for architecture in known])


def test_given_numbers_that_do_not_fit() -> None:
    space = toy_space()
    known = space.sample(3, np.random.default_rng(0))
    with pytest.raises(ProfilerError, match="takes 1 finite numbers for each of 3"):
        Given("p", (known.codes, np.zeros((3, 2))), ["a"])
    with pytest.raises(ProfilerError, match="some are not finite"):
        Given("p", (known.codes, np.full((3, 1), np.nan)), ["a"])
    with pytest.raises(ProfilerError, match="an identifier"):
        Given("a b", (known.codes, np.zeros((3, 1))), ["a"])
    with pytest.raises(ProfilerError, match="a name for each"):
        Given("p", (known.codes, np.zeros((3, 0))), [])
    with pytest.raises(TypeError, match="a function, a pair"):
        Given("p", 3, ["a"])  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="was given no numbers for"):
        Given("p", (known.codes, np.zeros((3, 1))), ["a"]).encode(space.sample(50, np.random.default_rng(9)))
    with pytest.raises(ProfilerError, match="is to give finite numbers of shape"):
        Given("p", lambda batch: [1.0], ["a"]).encode(known)


def test_the_default_knows_a_resolution() -> None:
    assert str(default_encoding(small_ofa())) == "slots + slots * resolution^2"
    assert str(default_encoding(toy_space())) == "slots"
    odd = Space([Choice("resolution", ("low", "high"))])
    assert str(default_encoding(odd)) == "slots"


def test_spaces_of_other_costs_have_other_fingerprints() -> None:
    narrow, wide = spaces.ofa_mobilenetv3(width=1.0), spaces.ofa_mobilenetv3(width=1.2)
    assert narrow.fingerprint == wide.fingerprint
    for text, same in (("slots", True), ("costs", False), ("slots + costs", False), ("costs * resolution", False)):
        encoding = make_encoding(text)
        assert (encoding.fingerprint(narrow) == encoding.fingerprint(wide)) == same, text


def test_what_is_prepared_lives_as_long_as_the_space() -> None:
    space = small_ofa()
    encoding = make_encoding("slots + costs * resolution + adjacency")
    assert encoding.parts[0].plan(space) is encoding.parts[0].plan(space)
    encoding.encode(space.sample(2, np.random.default_rng(0)))
    reference = weakref.ref(space)
    del space
    gc.collect()
    assert reference() is None


def test_encodings_pickle() -> None:
    encoding = make_encoding("slots + costs(log) + counts * resolution")
    assert pickle.loads(pickle.dumps(encoding)) == encoding
