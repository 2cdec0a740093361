"""Choices, their names and conditions are read off the module exactly; errors say where and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from model_spaces import Attention, Attributes, Cells, Rich
from torch import Tensor

from nasmw import Choice, Space, nn
from nasmw.errors import SpaceError


def made(parts: Callable[[], Any]) -> Any:
    """Return a space with one part."""

    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.part = parts()

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x)

    return Net()


def test_names_options_and_conditions_of_a_rich_space() -> None:
    space = Rich()
    choices = {choice.name: choice for choice in space.choices}
    assert choices["width"] == Choice("width", (4, 8))
    assert choices["act"] == Choice("act", (0, 1, 2))
    assert choices["op1"] == Choice("op1", ("inverted", "conv", "pool", "skip"), when={"depth": (2, 3)})
    assert choices["kernel1"].when == {"depth": (2, 3), "op1": ("inverted", "conv")}
    assert choices["expansion2"].when == {"depth": (3,), "op2": ("inverted",)}
    block = 3 * 3 + 3 + 1 + 1
    assert space.size == 2 * 3 * (block + block**2 + block**3)


def test_size_of_cells() -> None:
    one_node = (3 * 2) ** 2, (3 * 3) ** 2  # operators times inputs, for each of two operators
    space = Cells()
    assert space.size == one_node[0] * one_node[1] * (3 * 1) * (3 * 2) * 3
    assert "cell/op_2_0" in space.names
    assert "last.input_1_0" in space.names
    assert [place.path for place in space.places("cell/input_2_1")] == ["first", "second"]


def test_input_choice_of_any_number() -> None:
    space = made(lambda: nn.InputChoice(3, None))
    assert space.choices[0].options == ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))


def test_shared_labels_choose_together() -> None:
    space = made(lambda: nn.Sequential(*[nn.LayerChoice([nn.ReLU(), nn.Tanh()], label="act") for _ in range(3)]))
    assert space.size == 2
    assert [type(layer) for layer in space.build({"act": 1}).part] == [torch.nn.Tanh] * 3


def test_a_copied_block_chooses_together_and_made_blocks_choose_apart() -> None:
    copied = made(lambda: nn.Repeat(nn.LayerChoice([nn.ReLU(), nn.Tanh()]), (1, 3)))
    assert copied.size == 6
    assert copied.choices[1].when == {}
    apart = made(lambda: nn.Repeat(lambda at: nn.LayerChoice([nn.ReLU(), nn.Tanh()]), (1, 3)))
    assert apart.size == 2 + 4 + 8


def test_a_depth_that_is_computed() -> None:
    def parts() -> Any:
        depth = nn.choice("half", (0, 1, 2)) * 2
        return nn.Repeat(lambda at: nn.LayerChoice([nn.ReLU(), nn.Tanh()], label=f"act{at}"), depth)

    space = made(parts)
    assert space.size == 1 + 4 + 16
    assert [dict(choice.when) for choice in space.choices[1:]] == [{"half": (1, 2)}] * 2 + [{"half": (2,)}] * 2


def test_a_value_at_two_options_of_one_choice() -> None:
    def parts() -> Any:
        kernel = nn.choice("kernel", (1, 3))
        convs = {"a": nn.Conv1d(2, 2, kernel), "b": nn.Conv1d(2, 2, kernel, bias=False), "c": nn.Identity()}
        return nn.LayerChoice(convs, label="op")

    assert made(parts).choices[1].when == {"op": ("a", "b")}


def test_an_alternative_that_is_no_condition_is_known_to_function_keys() -> None:
    def parts() -> Any:
        width = nn.choice("width", (1, 2))
        return nn.Sequential(
            nn.LayerChoice({"conv": nn.Conv1d(2, 2, width), "skip": nn.Identity()}, label="first"),
            nn.LayerChoice({"conv": nn.Conv1d(2, 2, width), "skip": nn.Identity()}, label="second"),
        )

    space = made(parts)
    assert space.size == 8
    assert len(set(space.function_keys(space.at(range(8))))) == 7  # both skipped: the width is nobody's


def test_names_are_the_same_in_another_process() -> None:
    code = "from model_spaces import *; print([make().fingerprint for make in (Rich, Attention, Cells, Attributes)])"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert run.stdout.strip() == str([make().fingerprint for make in (Rich, Attention, Cells, Attributes)]), run.stderr


def test_importing_nasmw_imports_no_torch() -> None:
    code = "import sys, nasmw; assert 'torch' not in sys.modules; import nasmw.nn"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent).returncode == 0


def test_names_of_nni_and_of_torch() -> None:
    assert nn.MutableLinear(3, 2).__class__ is torch.nn.Linear
    assert nn.Module is torch.nn.Module
    assert isinstance(torch.nn.Conv2d(1, 1, 1), nn.Conv2d)
    assert issubclass(torch.nn.Conv2d, nn.Conv2d)

    class Own(nn.Linear):
        pass

    assert issubclass(Own, torch.nn.Linear)
    for name in ("NoSuchLayer", "Mutablefunctional", "Mutable"):
        with pytest.raises(AttributeError, match=name):
            getattr(nn, name)


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_one_label_with_different_options() -> None:
    def parts() -> Any:
        return nn.Sequential(nn.Linear(2, nn.choice("w", (2, 4))), nn.Linear(nn.choice("w", (2, 4, 8)), 2))

    with pytest.raises(SpaceError) as raised:
        made(parts)
    for text in ("'w'", "(2, 4)", "(2, 4, 8)", "'part.0' (out_features)", "'part.1' (in_features)", "two labels"):
        assert text in str(raised.value)


class Block(torch.nn.Module):
    def __init__(self, width: Any) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(2, width)


class Chooser(torch.nn.Module):
    def __init__(self, width: Any) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList()
        if width > 4:
            self.layers.append(torch.nn.ReLU())


class Looker(torch.nn.Module):
    def __init__(self, width: Any) -> None:
        super().__init__()
        self.limit = torch.zeros(2) + width


class Parametrised(torch.nn.Module):
    def __init__(self, width: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda: torch.nn.Linear(2, nn.choice("w", (2, 4))), r"'part'.*was given the choice 'w'.*nasmw.nn.Linear"),
        (lambda: Block(nn.choice("w", (2, 4))), r"module 'part.inner': .*`out_features`.*make it by nasmw.nn.Linear"),
        (lambda: torch.nn.Conv2d(2, nn.choice("w", (2, 4)), 1), "make it by nasmw.nn.Conv2d"),
        (lambda: torch.nn.LayerNorm(nn.choice("w", (2, 4))), "make it by nasmw.nn.LayerNorm"),
        (lambda: torch.nn.MultiheadAttention(nn.choice("w", (2, 4)), 1), "make it by nasmw.nn.MultiheadAttention"),
        (lambda: Parametrised(nn.choice("w", (2, 4))), r"module 'part': .*Parametrised.*elastic\(Parametrised\)"),
        (lambda: Chooser(nn.choice("w", (2, 8))), r"module 'part': .*Chooser was given .* a comparison was asked"),
        (lambda: Looker(nn.choice("w", (2, 8))), r"module 'part': .*a product or sum with a tensor"),
        (lambda: nn.LayerChoice([]), "has no options"),
        (lambda: nn.LayerChoice({}), "has no options"),
        (lambda: nn.LayerChoice([nn.ReLU(), "tanh"], label="act"), "option 1 of the layer choice 'act' is a torch"),
        (lambda: nn.LayerChoice({"a": None}), "option 'a' of a layer choice is a torch.nn.Module"),
        (lambda: nn.LayerChoice([lambda: 3]), "returns is a torch.nn.Module"),
        (lambda: nn.LayerChoice(nn.ReLU()), "takes a dictionary or a list"),
        (lambda: nn.choice("w", ()), "no options"),
        (lambda: nn.choice((1, 2), "w"), "takes a label first"),
        (lambda: nn.Repeat(nn.ReLU(), (3, 1, 1)), "a pair of the least and the greatest"),
        (lambda: nn.Repeat(nn.ReLU(), -1), "0 or more, got -1"),
        (lambda: nn.Repeat([nn.ReLU()], (1, 2)), "needs a block for each depth and has 1"),
        (lambda: nn.Repeat(3, (1, 2)), "repeats a function of the position"),
        (lambda: nn.Repeat(lambda at: at, (1, 2)), "block 0 of a repetition returns is a torch.nn.Module"),
        (lambda: nn.InputChoice(0), "n_candidates=0"),
        (lambda: nn.InputChoice(2, 3), "takes 1 to 2 of 2 inputs"),
        (lambda: nn.InputChoice(2, reduction="product"), "`reduction` is one of"),
        (lambda: nn.InputChoice(40, 20), "the limit is 4096"),
        (lambda: nn.Cell([], 2), "has no operators"),
        (lambda: nn.Cell([nn.ReLU()], 0), "`num_nodes` of a cell is an integer of at least 1"),
        (lambda: nn.Cell([nn.ReLU()], 1, merge_op="some"), "`merge_op` of a cell is one of"),
        (lambda: nn.ReLU(), "has no choices"),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_remedy(parts: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpaceError, match=f"(?s){message}"):
        made(parts)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LayerChoice([nn.ReLU()], label="a"),
        lambda: nn.InputChoice(2),
        lambda: nn.Repeat(nn.ReLU(), (1, 2)),
        lambda: nn.Cell([nn.ReLU()], 1),
        lambda: nn.choice("w", (1, 2)),
        lambda: nn.ValueChoice((1, 2)),
    ],
)
def test_choices_belong_into_a_model_space(make: Callable[[], Any]) -> None:
    with pytest.raises(SpaceError, match="made outside a model space; make it while the `__init__`"):
        make()


def test_names_of_a_space_are_no_attributes() -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.size = 3

    with pytest.raises(SpaceError, match=r"Net.size is part of what a Space is.*another name"):
        Net()


def test_an_error_of_the_user_stays_what_it_is() -> None:
    def parts() -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        made(parts)


def test_a_choice_that_nothing_uses() -> None:
    class Net(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.LayerChoice([nn.ReLU(), nn.Tanh()])
            nn.choice("forgotten", (1, 2))

    with pytest.raises(SpaceError, match="'forgotten' was made and no module uses it"):
        Net()


def test_architectures_are_checked_as_in_any_space() -> None:
    space = Rich()
    assert isinstance(space, Space)
    with pytest.raises(SpaceError, match="did you mean"):
        space.build({"widht": 4})
    with pytest.raises(SpaceError, match="lacks choice"):
        space.activate({"width": 4})


# -- any nesting --------------------------------------------------------------------------------------------------

PARTS = st.recursive(
    st.sampled_from(["relu", "linear"]),
    lambda inner: st.one_of(
        st.tuples(st.just("choice"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("repeat"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("row"), st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=8,
)


def part(description: Any) -> Any:
    if description == "relu":
        return nn.ReLU()
    if description == "linear":
        return nn.Linear(3, 3, bias=nn.ValueChoice((True, False)))
    kind, inner = description
    if kind == "choice":
        return nn.LayerChoice([lambda one=one: part(one) for one in inner])
    if kind == "repeat":
        return nn.Repeat(lambda at: part(inner[at]), (0, len(inner)))
    return nn.Sequential(*[part(one) for one in inner])


def number(description: Any) -> int:
    if isinstance(description, str):
        return 1 if description == "relu" else 2
    kind, inner = description
    sizes = [number(one) for one in inner]
    if kind == "choice":
        return sum(sizes)
    products = [int(np.prod(sizes[:depth], dtype=object)) for depth in range(len(sizes) + 1)]
    return sum(products) if kind == "repeat" else products[-1]


class Nested(nn.ModelSpace):
    def __init__(self, description: Any) -> None:
        super().__init__()
        self.always = nn.LayerChoice([nn.ReLU(), nn.Tanh()], label="always")
        self.body = part(description)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.always(x))


@settings(max_examples=40, deadline=None)
@given(PARTS)
def test_any_nesting_has_the_size_that_it_has(description: Any) -> None:
    space = Nested(description).eval()
    assert space.size == 2 * number(description)
    x = torch.randn(2, 3)
    drawn = space.sample(5, np.random.default_rng(0))
    assert len(set(space.function_keys(drawn))) == len(set(drawn.row_keys()))
    for architecture in drawn:
        model = space.build(architecture, weights=True)
        with space.activate(architecture):
            assert torch.equal(space(x), model(x))
