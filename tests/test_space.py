from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from conditional import conditional_spaces, conditional_variables, enumerate_distinct, matters, space_of
from hypothesis import given
from hypothesis import strategies as st

from nasmw.choice import Choice
from nasmw.errors import BuildError, SpaceError
from nasmw.space import FEW, Space
from nasmw.testing import build_toy, toy_space

seeds = st.integers(0, 2**32)


# -- choices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", (1, 2)), "named by a non-empty string, got ''"),
        ((3, (1, 2)), "named by a non-empty string, got 3"),
        (("a", ()), "choice 'a' has no options"),
        (("a", "abc"), "sequence of values, got 'abc'"),
        (("a", 3), "sequence of values, got 3"),
        (("a", (1, 2, 1)), "choice 'a' has the option 1 more than once"),
        (("a", (1, True)), "more than once"),
        (("a", ([1], [2])), "cannot be hashed.*use a tuple for a list"),
        (("a", (1, 2), "depth"), "`when` maps names of choices to options, got 'depth'"),
    ],
)
def test_a_choice_checks_its_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Choice(*arguments)


def test_conditions_take_one_option_or_several() -> None:
    for allowed in (2, (2,), [2], {2}, range(2, 3)):
        space = Space([Choice("depth", (1, 2)), Choice("kernel", (3, 5), when={"depth": allowed})])
        assert space.size == 3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "at least one choice"),
        (["depth"], "made of Choice objects, got 'depth'"),
        ([Choice("a", (1,)), Choice("a", (2,))], "two choices are named 'a'"),
        ([Choice("a", (1,), when={"b": 1}), Choice("b", (1,))], "'a' depends on 'b', which is not declared before"),
        ([Choice("depth", (1, 2)), Choice("b", (1,), when={"dept": 1})], "did you mean 'depth'"),
        ([Choice("depth", (1, 2)), Choice("b", (1,), when={"depth": 3})], "'depth' being 3, which is no option"),
        ([Choice("depth", (1, 2)), Choice("b", (1,), when={"depth": ()})], "lists no option of 'depth'"),
    ],
)
def test_a_space_checks_its_choices(choices: list[Choice], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Space(choices)


def test_build_must_be_a_function() -> None:
    with pytest.raises(SpaceError, match="`build` must be a function of an architecture, got 'conv'"):
        Space([Choice("a", (1,))], build="conv")  # type: ignore[arg-type]


# -- codes and mappings -------------------------------------------------------------------------------------------


@given(conditional_variables())
def test_size_and_ranks_match_enumeration(variables: list[Any]) -> None:
    space = space_of(variables)
    everything = space.at(range(space.size))
    assert {tuple(row) for row in everything.codes.tolist()} == enumerate_distinct(variables)
    assert len(everything) == space.size


@given(conditional_spaces, seeds)
def test_encode_and_decode_are_inverse(space: Space, seed: int) -> None:
    batch = space.sample(10, np.random.default_rng(seed))
    for row, architecture in zip(batch.codes, batch, strict=True):
        assert np.array_equal(space.encode(architecture), row)
        assert space.encode(architecture).dtype == space.dtype
        assert space.decode(row) == architecture
    assert np.array_equal(space.candidates(list(batch)).codes, batch.codes)


@given(conditional_spaces, seeds)
def test_options_of_inactive_choices_are_ignored(space: Space, seed: int) -> None:
    batch = space.sample(5, np.random.default_rng(seed))
    for row, architecture in zip(batch.codes, batch, strict=True):
        full = {choice.name: choice.options[-1] for choice in space.choices} | architecture
        assert np.array_equal(space.encode(full), row)
        nonsense = {name: architecture.get(name, ["no such option"]) for name in space.names}
        assert np.array_equal(space.encode(nonsense), row)


@given(conditional_variables(), seeds, st.sampled_from([0, 1, FEW, FEW + 1, 40]))
def test_active_is_as_defined_however_many_rows(variables: list[Any], seed: int, n: int) -> None:
    space = space_of(variables)
    codes = np.random.default_rng(seed).integers(0, [v.options for v in variables], (n, len(variables)))
    expected = [matters(variables, row) for row in codes.tolist()]
    active = space.active(codes)
    assert active.dtype == np.bool_ and active.shape == codes.shape
    assert active.tolist() == expected
    canonical = space.canonical(codes)
    assert canonical.tolist() == np.where(expected, codes, 0).tolist() if n else canonical.shape == codes.shape
    assert canonical.dtype == space.dtype
    assert np.array_equal(space.canonical(canonical), canonical)
    assert np.array_equal(space.candidates(codes).codes, canonical)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"widht": 8, "depth": 1, "block0.op": "pool"}, "has no choice 'widht'; did you mean 'width'"),
        ({"width": 9, "depth": 1, "block0.op": "pool"}, "choice 'width' has no option 9; known are 4, 8, 12, 16"),
        ({"width": [8], "depth": 1, "block0.op": "pool"}, r"choice 'width' has no option \[8\]"),
        ({"width": ([8],), "depth": 1, "block0.op": "pool"}, "choice 'width' has no option"),
        ({"width": 8, "depth": 1, "block0.op": "cnv"}, "did you mean 'conv'"),
        ({"depth": 1, "block0.op": "pool"}, "lacks choice 'width'$"),
        (
            {"width": 8, "depth": 2, "block0.op": "pool"},
            r"lacks choice 'block1.op', which matters as .*depth.*\(2, 3\)",
        ),
        ([8, 1, "pool"], "an architecture is a mapping"),
    ],
)
def test_wrong_architectures(architecture: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        toy_space().encode(architecture)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros(11), "codes are integers, got float64"),
        (np.zeros(10, int), r"shape \(n, 11\), got \(1, 10\)"),
        (np.zeros((2, 11), int), r"shape \(n, 11\), got \(1, 2, 11\)"),
        (np.full(11, 4), "code 4 of choice 'width', which has 4 options"),
        (np.full(11, 4, np.uint8), "code 4 of choice 'width', which has 4 options"),
        (np.full(11, -1), "code -1 of choice 'width'"),
        # Codes of inactive choices are checked too.
        (np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9], np.uint8), "code 9 of choice 'block2.expand'"),
    ],
)
def test_wrong_codes(codes: np.ndarray, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        toy_space().decode(codes)
    if codes.ndim == 1:
        with pytest.raises(SpaceError, match=message):
            toy_space().canonical(codes[None, :])


def test_decode_takes_any_integers() -> None:
    space = toy_space()
    row = space.encode({"width": 12, "depth": 1, "block0.op": "pool"})
    for same in (row, row.astype(np.int64), row.tolist()):
        assert space.decode(same) == {"width": 12, "depth": 1, "block0.op": "pool"}


def test_numpy_options_are_found() -> None:
    space = toy_space()
    assert space.encode({"width": np.int64(8), "depth": np.float64(1), "block0.op": np.str_("pool")})[0] == 1


def test_one_mapping_is_one_candidate() -> None:
    space = toy_space()
    assert len(space.candidates({"width": 8, "depth": 1, "block0.op": "pool"})) == 1
    assert len(space.candidates([])) == 0
    assert space.candidates([]).codes.shape == (0, 11)


def test_unknown_column() -> None:
    space = toy_space()
    assert space.column("depth") == 1
    with pytest.raises(SpaceError, match="did you mean 'depth'"):
        space.column("deepth")


def test_dtype_is_the_smallest() -> None:
    for options, dtype in ((256, np.uint8), (257, np.uint16), (70_000, np.uint32)):
        space = Space([Choice("a", range(options)), Choice("b", (1, 2))])
        assert space.dtype == dtype
        assert space.sample(3, np.random.default_rng(0)).codes.dtype == dtype
        assert space.at([0, space.size - 1]).codes.dtype == dtype
        assert space.encode({"a": options - 1, "b": 2}).tolist() == [options - 1, 1]


# -- sampling, mutation, neighbours -------------------------------------------------------------------------------


def test_sampling_is_uniform_over_distinct_architectures() -> None:
    space = toy_space()
    drawn = 20 * space.size
    codes = space.sample(drawn, np.random.default_rng(11)).codes
    found, counts = np.unique(codes, axis=0, return_counts=True)
    counts = np.concatenate([counts, np.zeros(space.size - len(found))])
    chi_square = ((counts - 20) ** 2 / 20).sum()
    freedom = space.size - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


@given(conditional_spaces, seeds, st.sampled_from([1, FEW, FEW + 1, 30]), st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_mutation_changes_every_row_and_stays_canonical(
    space: Space, seed: int, n: int, probability: float | None
) -> None:
    rng = np.random.default_rng(seed)
    codes = space.sample(n, rng).codes
    before = codes.copy()
    mutated = space.mutate(codes, rng, probability)
    assert np.array_equal(codes, before)
    assert mutated.shape == codes.shape and mutated.dtype == space.dtype
    assert np.array_equal(space.canonical(mutated), mutated)
    assert (mutated != codes).any(axis=1).all() == (space.size > 1)


@given(conditional_spaces, seeds, st.sampled_from([1, FEW, FEW + 1, 30]))
def test_mutation_changes_exactly_one_active_choice(space: Space, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    codes = space.sample(n, rng).codes
    mutated = space.mutate(codes, rng)
    in_both = space.active(codes) & space.active(mutated)
    assert (((mutated != codes) & in_both).sum(axis=1) == (space.size > 1)).all()


@pytest.mark.parametrize("n", [1, FEW + 1])
def test_mutation_is_uniform_however_many_rows_at_once(n: int) -> None:
    """Few rows and many take two ways; both have the distribution that the docstring states."""
    space = Space(
        [
            Choice("depth", (1, 2, 3)),
            Choice("width", (8, 16)),
            Choice("kernel", (3, 5, 7), when={"depth": (2, 3)}),
            Choice("same", (1,)),
        ]
    )
    rng = np.random.default_rng(4)
    row = space.encode({"depth": 1, "width": 8, "same": 1})[None, :]
    rounds = 12_000 // n
    mutated = np.concatenate([space.mutate(np.repeat(row, n, axis=0), rng) for _ in range(rounds)])
    found, counts = np.unique(mutated, axis=0, return_counts=True)
    # Half of the time width changes; else depth is 2 or 3, each with one of three kernels.
    assert found.tolist() == [[0, 1, 0, 0], *([depth, 0, kernel, 0] for depth in (1, 2) for kernel in range(3))]
    total = rounds * n
    expected = np.array([total / 2] + [total / 12] * 6)
    assert ((counts - expected) ** 2 / expected).sum() < 22.5  # 0.1 % at 6 degrees of freedom


@pytest.mark.parametrize("n", [1, FEW + 1])
def test_mutation_with_a_probability(n: int) -> None:
    space = Space([Choice(f"c{number}", range(5)) for number in range(10)])
    rng = np.random.default_rng(4)
    codes = space.sample(n, rng).codes
    changed = np.concatenate([(space.mutate(codes, rng, 0.2) != codes).sum(axis=1) for _ in range(8000 // n)])
    expected = 10 * 0.2 + 0.8**10  # one of them changes where none else does
    assert abs(changed.mean() - expected) < 0.06
    assert changed.min() == 1


@given(conditional_spaces, seeds, st.sampled_from([1, FEW, FEW + 1]))
def test_crossover_takes_from_parents(space: Space, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = space.sample(n, rng).codes, space.sample(n, rng).codes
    child = space.crossover(first, second, rng)
    assert np.array_equal(space.canonical(child), child)
    active = space.active(child)
    known = space.active(first) | space.active(second)
    from_either = (child == first) | (child == second)
    assert from_either[active & known].all()
    assert np.array_equal(space.crossover(first, first, rng), first)


@pytest.mark.parametrize("n", [1, FEW + 1])
def test_crossover_takes_from_both_alike(n: int) -> None:
    space = Space([Choice(f"c{number}", (0, 1)) for number in range(8)])
    rng = np.random.default_rng(0)
    first, second = np.zeros((n, 8), np.uint8), np.ones((n, 8), np.uint8)
    means = np.concatenate([space.crossover(first, second, rng) for _ in range(3000 // n)]).mean(axis=0)
    assert (abs(means - 0.5) < 0.05).all()


def test_parents_of_crossover_are_as_many() -> None:
    space = Space([Choice(f"c{number}", (0, 1)) for number in range(8)])
    first, second = np.zeros((3000, 8), np.uint8), np.ones((3000, 8), np.uint8)
    with pytest.raises(SpaceError, match="as many first as second parents, got 3000 and 1"):
        space.crossover(first, second[:1], np.random.default_rng(0))


@given(conditional_spaces, seeds)
def test_neighbours_differ_in_one_active_choice(space: Space, seed: int) -> None:
    row = space.sample(1, np.random.default_rng(seed)).codes[0]
    neighbours = space.neighbours(row)
    active = space.active(row[None, :])
    options = [len(choice.options) for choice in space.choices]
    assert len(neighbours) == sum(size - 1 for size, own in zip(options, active[0], strict=True) if own)
    assert len(set(neighbours.row_keys())) == len(neighbours)
    if len(neighbours):
        both = active & space.active(neighbours.codes)
        assert (((neighbours.codes != row) & both).sum(axis=1) == 1).all()
        newly = space.active(neighbours.codes) & ~active
        assert not neighbours.codes[newly].any()


# -- identity, size, building -------------------------------------------------------------------------------------


def test_repr_shows_the_size() -> None:
    assert repr(toy_space()) == "<Space 'toy': 11 choices, 1596 architectures>"
    large = Space([Choice(f"c{number}", range(10)) for number in range(20)], name="large")
    assert large.size == 10**20
    assert repr(large) == "<Space 'large': 20 choices, 1.000e+20 architectures>"
    assert "about 10^400" in repr(Space([Choice(f"c{number}", range(10)) for number in range(400)]))


def test_spaces_count_choices_and_are_true() -> None:
    assert len(toy_space()) == 11
    assert toy_space()
    assert toy_space().names[:3] == ("width", "depth", "block0.op")


def test_fingerprints_are_equal_where_codes_mean_the_same() -> None:
    def space(options: tuple[int, ...] = (3, 5), when: int = 2, name: str = "b") -> Space:
        return Space([Choice("a", (1, 2)), Choice(name, options, when={"a": when})])

    assert space().fingerprint == space().fingerprint
    others = {space((5, 3)).fingerprint, space(when=1).fingerprint, space(name="c").fingerprint}
    assert space().fingerprint not in others
    assert len(others) == 3


def test_spaces_pickle() -> None:
    space = toy_space()
    size = space.size
    copy = pickle.loads(pickle.dumps(space))
    assert copy.size == size
    assert copy.fingerprint == space.fingerprint
    assert np.array_equal(copy.at([5, 700]).codes, space.at([5, 700]).codes)


def test_function_keys() -> None:
    choices = [Choice("a", (1, 2)), Choice("b", (1, 2))]
    symmetric = Space(choices, function_key=lambda arch: tuple(sorted(arch.values())))
    batch = symmetric.at(range(4))
    assert len(set(symmetric.function_keys(batch))) == 3
    plain = Space(choices)
    assert len(set(plain.function_keys(plain.at(range(4))))) == 4


@pytest.mark.parametrize("rank", [0, 3, 801, 1595])
def test_toy_networks_are_built_and_run(rank: int) -> None:
    import torch

    space = toy_space()
    architecture = next(iter(space.at([rank])))
    model = space.build(architecture)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    assert any(layer.out_channels == architecture["width"] for layer in model if isinstance(layer, torch.nn.Conv2d))
    assert isinstance(build_toy(architecture), torch.nn.Module)


def test_build_gets_the_active_choices_only() -> None:
    from torch import nn

    seen = []

    def build(architecture: dict[str, Any]) -> nn.Module:
        seen.append(architecture)
        return nn.Identity()

    space = Space([Choice("a", (1, 2)), Choice("b", (3, 4), when={"a": 2})], build=build)
    space.build({"a": 1, "b": 4})
    assert seen == [{"a": 1}]
    assert space.buildable
    with pytest.raises(SpaceError, match="no option 9"):
        space.build({"a": 9})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (None, "made without `build`"),
        (lambda architecture: 3, "must return a torch.nn.Module, got int"),
        (lambda architecture: architecture["c"], r"building \{'a': 1\} raised KeyError: 'c'"),
    ],
)
def test_building_fails_clearly(build: Any, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        Space([Choice("a", (1,))], build=build).build({"a": 1})
