from __future__ import annotations

import itertools
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasmw.candidates import Candidates
from nasmw.cost import CostTable, MaxTable, TableBase
from nasmw.errors import ProfilerError, SpaceError
from nasmw.profiler import Profiler
from nasmw.space import Choice, Space
from nasmw.tabled import TabledProfiler

NAMES = ("depth", "kind", "a", "b", "c", "head")


def gated_space() -> Space:
    """``b`` matters at depth 2 and kind x, ``c`` only where ``b`` has its last option."""
    return Space(
        [
            Choice("depth", (1, 2)),
            Choice("kind", ("x", "y", "z")),
            Choice("a", (3, 5, 7)),
            Choice("b", (0, 1, 2), when={"depth": 2, "kind": ("x", "z")}),
            Choice("c", ("p", "q"), when={"b": 2}),
            Choice("head", (10, 20, 30, 40)),
        ],
        name="gated",
    )


SPACE = gated_space()
ALL = SPACE.at(range(SPACE.size))

scopes = st.lists(st.lists(st.sampled_from(NAMES), min_size=0, max_size=3, unique=True), min_size=1, max_size=7)


def random_terms(given_scopes, seed: int, integer: bool) -> list[tuple[tuple[str, ...], np.ndarray]]:
    rng = np.random.default_rng(seed)
    terms = []
    for names in given_scopes:
        shape = [len(SPACE.choices[SPACE.column(name)].options) for name in names]
        terms.append((tuple(names), rng.integers(-50, 50, shape) if integer else rng.normal(size=shape)))
    return terms


def parts_by_hand(architecture: dict, terms) -> list[float]:
    """Look every term up; an inactive choice counts as its first option."""
    values = []
    for names, table in terms:
        index = []
        for name in names:
            options = SPACE.choices[SPACE.column(name)].options
            index.append(options.index(architecture[name]) if name in architecture else 0)
        values.append(np.asarray(table)[tuple(index)].item())
    return values


@settings(max_examples=60, deadline=None)
@given(given_scopes=scopes, seed=st.integers(0, 10**6), integer=st.booleans(), constant=st.integers(-5, 5))
def test_values_and_bounds_equal_looking_every_term_up(given_scopes, seed, integer, constant) -> None:
    terms = random_terms(given_scopes, seed, integer)
    for kind, combine in ((CostTable, sum), (MaxTable, max)):
        table = kind(SPACE, terms, constant)
        wanted = np.array([combine(parts_by_hand(each, terms)) + constant for each in ALL])
        values = table.evaluate(ALL)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, wanted, rtol=0, atol=0 if integer else 1e-12)
        assert [table.value(each) for each in ALL] == pytest.approx(wanted.tolist(), abs=0 if integer else 1e-12)
        bounds = table.bounds()
        np.testing.assert_allclose([bounds.low, bounds.high], [wanted.min(), wanted.max()], atol=1e-12)
        assert table.value(bounds.low_architecture) == pytest.approx(bounds.low)
        assert table.value(bounds.high_architecture) == pytest.approx(bounds.high)
        assert table.integer == integer


def test_inactive_choices_of_codes_do_not_count() -> None:
    table = CostTable(SPACE, random_terms([NAMES[:5:2], NAMES[1:5], NAMES[3:]], 0, True))
    codes = np.array(list(itertools.product(*(range(n) for n in table.sizes))), dtype=np.uint8)
    assert len(codes) > SPACE.size
    np.testing.assert_array_equal(table.evaluate(codes), table.evaluate(SPACE.canonical(codes)))
    for order in "CF":
        np.testing.assert_array_equal(table.evaluate(np.array(ALL.codes, order=order)), table.evaluate(ALL))


def test_scopes_gain_gates_and_nested_tables_are_merged() -> None:
    table = CostTable(SPACE, [(("c",), [1, 2]), (("b",), [3, 4, 5]), (("head", "a"), np.ones((4, 3), int)), ((), 7)])
    named = {tuple(NAMES[column] for column in scope) for scope in table.tables}
    assert named == {("depth", "kind", "b", "c")}
    assert table.value({"depth": 2, "kind": "x", "a": 3, "b": 2, "c": "q", "head": 10}) == 2 + 5 + 1 + 7


def test_small_codes_do_not_wrap() -> None:
    space = Space([Choice(f"c{i}", tuple(range(200))) for i in range(3)])
    rng = np.random.default_rng(0)
    table = rng.integers(0, 10**6, (200, 200, 200))
    cost = CostTable(space, [(("c0", "c1", "c2"), table)])
    sample = space.sample(1000, rng)
    assert sample.codes.dtype == np.uint8
    np.testing.assert_array_equal(cost.evaluate(sample), table[tuple(sample.codes.astype(int).T)])
    row = sample.codes[0].tolist()
    assert cost.value(space.decode(sample.codes[0])) == table[tuple(row)]


def test_integers_stay_exact_up_to_2_to_53() -> None:
    big = 2**52
    table = CostTable(SPACE, [(("a",), [big, big + 1, big - 1]), (("head",), [1, 2, 3, 4])])
    assert table.integer
    assert table.bounds().high == big + 5
    assert set(table.evaluate(ALL)) == {float(big + k) for k in range(0, 6)}
    with pytest.raises(ProfilerError, match=r"beyond 2\^53 float64 is not exact"):
        CostTable(SPACE, [(("a",), [big, big, big]), (("head",), [big + 1, 0, 0, 0])])
    assert not CostTable(SPACE, [(("a",), [big, big, big]), (("head",), [2.0 * big, 0, 0, 0])]).integer
    scaled = table * 4
    assert not scaled.integer and scaled.bounds().high == 4.0 * (big + 5)


@settings(max_examples=30, deadline=None)
@given(first=scopes, second=scopes, seed=st.integers(0, 10**6), integer=st.booleans())
def test_arithmetic_is_that_of_the_values(first, second, seed, integer) -> None:
    a = CostTable(SPACE, random_terms(first, seed, integer), 3, name="a")
    b = CostTable(SPACE, random_terms(second, seed + 1, True), name="b")
    x, y = a.evaluate(ALL), b.evaluate(ALL)
    for table, values in ((a + b, x + y), (a - b, x - y), (2 * a + 1, 2 * x + 1), (0.5 * b, 0.5 * y), (-a, -x)):
        np.testing.assert_allclose(table.evaluate(ALL), values, atol=1e-10)
    assert (a + b).integer == integer and (a * 2.0).integer == integer and not (a * 0.5).integer
    most = MaxTable(SPACE, random_terms(first, seed, integer))
    np.testing.assert_allclose((2 * most + 1).evaluate(ALL), 2 * most.evaluate(ALL) + 1, atol=1e-10)


def test_what_cannot_be_added() -> None:
    table, most = CostTable(SPACE, [(("a",), [1, 2, 3])]), MaxTable(SPACE, [(("a",), [1, 2, 3])])
    for wrong in (lambda: table + most, lambda: most * -1, lambda: table * "2", lambda: most + most):
        with pytest.raises(TypeError):
            wrong()
    other = Space([Choice("a", (3, 5, 7))])
    with pytest.raises(ProfilerError, match="different spaces"):
        table + CostTable(other, [(("a",), [1, 2, 3])])
    with pytest.raises(ProfilerError, match="must be finite"):
        table * float("nan")


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        choice.name: torch.randn(len(choice.options), dtype=torch.float64).softmax(0).requires_grad_()
        for choice in SPACE.choices
    }


@settings(max_examples=30, deadline=None)
@given(given_scopes=scopes, seed=st.integers(0, 10**6), integer=st.booleans())
def test_expectation_is_that_of_independent_draws(given_scopes, seed, integer) -> None:
    table = CostTable(SPACE, random_terms(given_scopes, seed, integer), 2)
    probabilities = weights(seed)
    codes = np.array(list(itertools.product(*(range(n) for n in table.sizes))), dtype=np.uint8)
    chance = np.prod(
        [probabilities[choice.name].detach().numpy()[codes[:, i]] for i, choice in enumerate(SPACE.choices)], axis=0
    )
    # Inactive draws are ignored: the probability of an architecture is the sum over whatever they were.
    wanted = (chance * table.evaluate(SPACE.candidates(codes))).sum()
    assert float(table.expectation(probabilities).detach()) == pytest.approx(wanted)


def test_expectation_has_the_right_gradient() -> None:
    table = CostTable(SPACE, random_terms([NAMES[2:5], NAMES[:2], ("head",)], 1, False))
    given_logits = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in table.sizes]

    def expected(*logits: torch.Tensor) -> torch.Tensor:
        return table.expectation({name: each.softmax(0) for name, each in zip(NAMES, logits, strict=True)})

    assert torch.autograd.gradcheck(expected, given_logits)
    single = table.expectation({name: torch.full((n,), 1 / n) for name, n in zip(NAMES, table.sizes, strict=True)})
    assert single.dtype == torch.float32


def test_expectation_names_what_is_wrong() -> None:
    table = CostTable(SPACE, [(("a",), [1, 2, 3])])
    with pytest.raises(ProfilerError, match="depends on choice 'a', which has no probabilities"):
        table.expectation({"head": torch.ones(4) / 4})
    with pytest.raises(ProfilerError, match=r"need the shape \(3,\), got \(2,\)"):
        table.expectation({"a": torch.ones(2) / 2})
    with pytest.raises(ProfilerError, match="choice 'a' sum to 3, not to 1"):
        table.expectation({"a": torch.ones(3)})
    assert float(CostTable(SPACE, [], 4).expectation({})) == 4


@pytest.mark.parametrize("kind", [CostTable, MaxTable])
@pytest.mark.parametrize("integer", [True, False])
def test_saving_and_loading(kind: type[TableBase], integer: bool, tmp_path: Path) -> None:
    table = kind(SPACE, random_terms([NAMES[2:5], ("head",), ("a", "head")], 3, integer), 5, name="n")
    path = tmp_path / "table.npz"
    table.save(path)
    loaded = kind.load(path, gated_space())
    np.testing.assert_array_equal(loaded.evaluate(ALL), table.evaluate(ALL))
    assert (loaded.name, loaded.integer, loaded.constant) == (table.name, integer, table.constant)
    other = MaxTable if kind is CostTable else CostTable
    with pytest.raises(ProfilerError, match=f"not a {other.__name__}"):
        other.load(path, SPACE)
    with pytest.raises(ProfilerError, match="names, options or conditions of the choices differ"):
        kind.load(path, Space([Choice("a", (3, 5, 7))]))
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "format": np.array(99)})
    with pytest.raises(ProfilerError, match="has format 99, this version reads up to 1"):
        kind.load(path, SPACE)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ProfilerError, match="is no saved"):
        kind.load(path, SPACE)


def test_pickling_keeps_values() -> None:
    table = CostTable(SPACE, random_terms([NAMES[2:5], ("head",)], 3, True))
    table.evaluate(ALL)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(table)).evaluate(ALL), table.evaluate(ALL))


def test_bad_input_is_named() -> None:
    with pytest.raises(SpaceError, match="did you mean 'head'"):
        CostTable(SPACE, [(("heads",), [1, 2, 3, 4])])
    with pytest.raises(ProfilerError, match=r"needs an array of shape \(3, 4\), one axis per choice; got \(4, 3\)"):
        CostTable(SPACE, [(("a", "head"), np.zeros((4, 3)))])
    with pytest.raises(ProfilerError, match=r"holds nan at codes \(1,\)"):
        CostTable(SPACE, [(("a",), [1, np.nan, 2])])
    with pytest.raises(ProfilerError, match="names a choice twice"):
        CostTable(SPACE, [(("a", "a"), np.zeros((3, 3)))])
    with pytest.raises(ProfilerError, match="must hold numbers"):
        CostTable(SPACE, [(("a",), ["x", "y", "z"])])
    with pytest.raises(TypeError, match="by a sequence of names"):
        CostTable(SPACE, [("a", [1, 2, 3])])
    with pytest.raises(TypeError, match="takes a Space first"):
        CostTable([(("a",), [1, 2, 3])], [])
    with pytest.raises(ProfilerError, match="constant or factor of a table must be finite"):
        CostTable(SPACE, [], float("inf"))
    with pytest.raises(ProfilerError, match="at least one table"):
        MaxTable(SPACE, [])
    wide = Space([Choice(f"c{i}", tuple(range(100))) for i in range(5)])
    with pytest.raises(ProfilerError, match="split it into a sum of smaller ones"):
        CostTable(wide, [(wide.names, np.broadcast_to(0, (100,) * 5))])


def test_bad_candidates_and_architectures_are_named() -> None:
    table = CostTable(SPACE, [(("a",), [1, 2, 3])])
    other = Space([Choice("a", (3, 5, 7))])
    with pytest.raises(ProfilerError, match="candidates of another space"):
        table.evaluate(other.candidates([{"a": 3}]))
    with pytest.raises(SpaceError, match="codes of"):
        table.evaluate(np.zeros((3, 2), dtype=np.uint8))
    with pytest.raises(SpaceError, match="code 3 of choice 'a'"):
        table.evaluate(np.array([[0, 0, 3, 0, 0, 0]], dtype=np.uint8))
    good = {"depth": 1, "kind": "x", "a": 3, "head": 10}
    assert table.value(good) == table.value({**good, "b": 1}) == 1
    for wrong, text in (
        ({**good, "a": 4}, "no option 4"),
        ({**good, "heads": 1}, "did you mean 'head'"),
        ({**good, "depth": 2}, "lacks choice 'b'"),
        ({**good, "head": 11}, "no option 11"),
        ({**good, "a": []}, "no option"),
    ):
        with pytest.raises(SpaceError, match=text):
            table.value(wrong)


def test_a_table_of_no_terms_is_its_constant() -> None:
    table = CostTable(SPACE, [], 4)
    assert table.evaluate(ALL).tolist() == [4.0] * len(ALL)
    assert table.value(SPACE.decode(ALL.codes[0])) == 4 and table.bounds().low == table.bounds().high == 4


def test_tabled_profilers_combine_to_tabled_ones() -> None:
    macs = TabledProfiler(CostTable(SPACE, random_terms([NAMES[2:5]], 3, True)), "macs")
    params = TabledProfiler(CostTable(SPACE, random_terms([("a", "head")], 4, True)), "params")
    peak = TabledProfiler(MaxTable(SPACE, random_terms([("a", "head")], 4, True)), "peak", "bytes")
    joint = 2 * macs - params + 7
    assert joint.table.integer
    np.testing.assert_array_equal(joint.profile_batch(ALL), joint.table.evaluate(ALL))
    assert joint.bounds().low == joint.profile_batch(ALL).min()
    assert (peak + macs).table is None and (peak + macs).bounds() is None
    assert (3 * peak).table.bounds().high == 3 * peak.bounds().high
    assert repr(peak) == "<TabledProfiler 'peak' [bytes]>"
    with pytest.raises(TypeError, match="takes a CostTable or a MaxTable first"):
        TabledProfiler(SPACE)

    class Plain(Profiler):
        def _profile_batch(self, candidates: Candidates) -> np.ndarray:
            return np.zeros(len(candidates))

    assert (Plain("plain", space=SPACE) + macs).table is None


def ofa_like() -> tuple[Space, CostTable]:
    choices = [Choice("resolution", tuple(range(160, 225, 4)))]
    terms = []
    rng = np.random.default_rng(0)
    for stage in range(5):
        depth = f"stage{stage}.depth"
        choices.append(Choice(depth, (2, 3, 4)))
        for block in range(4):
            when = {depth: tuple(range(block + 1, 5))} if block > 1 else None
            names = tuple(f"stage{stage}.block{block}.{what}" for what in ("kernel", "expand"))
            choices += [Choice(names[0], (3, 5, 7), when), Choice(names[1], (3, 4, 6), when)]
            values = rng.random((17, 3, 3, 3)) * (np.array((2, 3, 4)) > block)[None, :, None, None]
            terms.append((("resolution", depth, *names), values))
    space = Space(choices)
    return space, CostTable(space, terms)


def test_a_value_is_the_same_to_the_last_bit_however_it_is_asked_for() -> None:
    space, table = ofa_like()
    sample = space.sample(20_000, np.random.default_rng(1))
    values = table.evaluate(sample)
    for n in (1, 9, 256, 257, 10_000):
        assert table.evaluate(sample[:n]).tolist() == values[:n].tolist()
    assert [table.value(each) for each in sample[:300]] == values[:300].tolist()


def test_speed_on_46_choices() -> None:
    space, table = ofa_like()
    sample = space.sample(100_000, np.random.default_rng(0))
    architectures = list(sample[:300])
    table.evaluate(sample), table.value(architectures[0])
    batch, single = [], []
    for _ in range(5):
        started = time.process_time()
        table.evaluate(sample)
        batch.append((time.process_time() - started) / len(sample))
        started = time.process_time()
        for each in architectures:
            table.value(each)
        single.append((time.process_time() - started) / len(architectures))
    # A quarter of what it does on a core of its own, so that a busy machine does not fail it.
    assert min(batch) < 0.4e-6
    assert min(single) < 80e-6


@pytest.mark.skipif("NASMW_DATA" not in os.environ, reason="NASMW_DATA names no folder with published latencies")
def test_a_lookup_table_gives_the_published_latencies() -> None:
    folder = Path(os.environ["NASMW_DATA"]) / "ofa"
    space, _ = ofa_like()
    with np.load(folder / "note10_lut.npz") as file:
        fixed, blocks = file["fixed_ms"], file["block_ms"]
    terms = [(("resolution",), fixed)]
    for slot in range(20):
        stage, block = divmod(slot, 4)
        exists = (np.array((2, 3, 4)) > block)[None, :, None, None]
        own = f"stage{stage}.block{block}"
        names = ("resolution", f"stage{stage}.depth", f"{own}.kernel", f"{own}.expand")
        terms.append((names, blocks[:, slot][:, None] * exists))
    table = CostTable(space, terms)
    with np.load(folder / "latency_note10_ofa.npz") as file:
        rows = [file[key].tolist() for key in ("ks", "e", "d", "r")]
        published = file["latency_ms"]
    architectures = []
    for kernels, expands, depths, resolution in zip(*rows, strict=True):
        architecture = {"resolution": resolution}
        for slot in range(20):
            stage, block = divmod(slot, 4)
            architecture[f"stage{stage}.depth"] = depths[stage]
            architecture[f"stage{stage}.block{block}.kernel"] = kernels[slot]
            architecture[f"stage{stage}.block{block}.expand"] = expands[slot]
        architectures.append(architecture)
    assert np.abs(table.evaluate(space.candidates(architectures)) - published).max() < 1e-4
