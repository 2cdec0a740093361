"""Bits that are choices: sizes in bytes, bit operations, and the rules that give each layer its bits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasmw import Choice, Space, spaces
from nasmw.errors import ProfilerError, SpaceError
from nasmw.profilers import BitOpsProfiler, FlopsProfiler, ModelSizeProfiler, ParamsProfiler
from nasmw.profilers.bits import Bits
from nasmw.testing import ProfilerContract

IMAGE = torch.zeros(1, 3, 8, 8)


def build(architecture):
    width = architecture["width"]
    layers = [nn.Conv2d(3, width, architecture["kernel"], padding="same"), nn.BatchNorm2d(width)]
    if architecture["depth"] == 2:
        layers.append(nn.Conv2d(width, architecture["extra"], 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


CHOICES = [
    Choice("resolution", (8, 16)),
    Choice("depth", (1, 2)),
    Choice("width", (4, 8)),
    Choice("kernel", (1, 3)),
    Choice("extra", (2, 6), when={"depth": 2}),
    Choice("0.bits", (2, 3, 8)),  # `build` reads no bits
    Choice("2.bits", (2, 4, 8), when={"depth": 2}),
    Choice("inputs", (4, 8)),
]


@pytest.fixture(scope="module")
def space():
    return Space(CHOICES, build=build, name="mixed")


def bytes_by_hand(a):
    first = 3 * a["width"] * a["kernel"] ** 2 * a["0.bits"] + 3 * a["width"] * 32
    second = (a["width"] * a["2.bits"] + 32) * a["extra"] if a["depth"] == 2 else 0
    return (first + second) / 8


def operations_by_hand(a):
    first = 3 * a["width"] * a["kernel"] ** 2 * a["0.bits"]
    second = a["width"] * a["extra"] * a["2.bits"] if a["depth"] == 2 else 0
    return a["resolution"] ** 2 * (first + second) * a["inputs"]


def by_function(architecture, layer):
    return architecture.get(f"{layer}.bits")


class TestModelSizeByLayerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return ModelSizeProfiler(space, bits={"0": "width", "*": 8}, progress=False)


class TestBitOpsProfilerContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return BitOpsProfiler(
            space, IMAGE, bits={"1": "block0.kernel", "*": 8}, activation_bits="width", progress=False
        )


class TestBitOpsProfilerCountingContract(ProfilerContract):
    samples = 12

    def make(self, space):
        return BitOpsProfiler(space, IMAGE, bits=4, method="count")


RULES = {
    "layer": "{layer}.bits",
    "patterns": {"0": "0.bits", "2": "2.bits"},
    "mixed": {"[02]": "{layer}.bits", "*": 16},
    "function": by_function,
}


@pytest.mark.parametrize("rule", RULES)
def test_sizes_of_all_architectures_equal_the_formula(space, rule):
    profiler = ModelSizeProfiler(space, bits=RULES[rule], progress=False)
    everything = space.at(range(space.size))
    assert profiler.table is not None
    assert profiler.profile_batch(everything).tolist() == [bytes_by_hand(a) for a in everything]


@pytest.mark.parametrize("rule", RULES)
def test_bit_operations_of_all_architectures_equal_the_formula(space, rule):
    profiler = BitOpsProfiler(space, IMAGE, bits=RULES[rule], activation_bits="inputs", progress=False)
    everything = space.at(range(space.size))
    assert profiler.table.integer
    assert profiler.profile_batch(everything).tolist() == [operations_by_hand(a) for a in everything]


def test_counting_equals_the_formula(space):
    some = space.sample(12, np.random.default_rng(0))
    size = ModelSizeProfiler(space, bits="{layer}.bits", method="count")
    operations = BitOpsProfiler(space, IMAGE, bits="{layer}.bits", activation_bits="inputs", method="count")
    assert size.table is None and operations.table is None
    assert size.profile_batch(some).tolist() == [bytes_by_hand(a) for a in some]
    assert operations.profile_batch(some).tolist() == [operations_by_hand(a) for a in some]


def test_scopes_gain_the_choices_of_bits(space):
    table = BitOpsProfiler(space, IMAGE, bits="{layer}.bits", activation_bits="inputs", progress=False).table
    named = {name for scope in table.tables for name in (space.choices[column].name for column in scope)}
    assert named == {choice.name for choice in CHOICES}
    low, high = (operations_by_hand(a) for a in (table.bounds().low_architecture, table.bounds().high_architecture))
    assert (low, high) == (table.bounds().low, table.bounds().high)


def test_inputs_have_the_bits_of_weights_unless_they_have_their_own(space):
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert BitOpsProfiler(None, IMAGE, bits=4).profile_model(conv) == 64 * 216 * 16
    assert BitOpsProfiler(None, IMAGE, bits=4, activation_bits=8).profile_model(conv) == 64 * 216 * 32
    assert BitOpsProfiler(None, IMAGE, bits={"x": 4}).profile_model(conv) == 64 * 216 * 32 * 32
    assert BitOpsProfiler(None, IMAGE, bits={"x": 4}, other_bits=8).profile_model(conv) == 64 * 216 * 64


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


def test_products_of_activations_have_the_bits_of_activations_twice():
    profiler = BitOpsProfiler(None, torch.zeros(1, 5, 8), bits=2, activation_bits=8)
    linear, attention = 5 * 8 * 32, 2 * 5 * 5 * 8
    assert profiler.profile_model(Attention()) == linear * 16 + attention * 64


class Quantised(nn.Module):
    """A convolution whose weights are rounded on the way, as in training for few bits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, x):
        weight = self.conv.weight
        return F.conv2d(x, torch.round(weight / weight.abs().max() * 7) / 7)


def test_weights_that_are_computed_from_parameters_are_weights():
    assert BitOpsProfiler(None, IMAGE, bits=4, activation_bits=8).profile_model(Quantised()) == 64 * 12 * 32


def test_biases_and_layers_without_bits_have_other_bits():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert ModelSizeProfiler(None, bits={"0": 4}).profile_model(net) == (12 * 4 + 12 * 32) / 8
    assert ModelSizeProfiler(None, bits={"0": 4}, other_bits=16).profile_model(net) == (12 * 4 + 12 * 16) / 8
    assert ModelSizeProfiler(None, bits={"*": 4}, buffers=True).profile_model(net) == (12 * 4 + 12 * 32 + 9 * 32) / 8
    assert ModelSizeProfiler(None, bits=4).profile_model(net) == 24 * 4 / 8


def test_one_precision_for_the_whole_network(space):
    choices = [Choice("bits", (4, 8)), Choice("kernel", (1, 3))]
    whole = Space(choices, build=lambda a: nn.Conv2d(3, 2, a["kernel"], bias=False))
    assert ModelSizeProfiler(whole, bits="bits", progress=False).profile({"bits": 4, "kernel": 3}) == 54 * 4 / 8
    assert BitOpsProfiler(whole, IMAGE, bits="bits", progress=False).profile({"bits": 8, "kernel": 1}) == 64 * 6 * 64


def test_patterns_of_names_without_layers_are_a_warning(space):
    with pytest.warns(UserWarning, match=r"`bits` names '2.bits', 'features.\*', and no layer of \d+ networks"):
        ModelSizeProfiler(space, bits={"features.*": 4, "0": "{layer}.bits"}, progress=False)


def test_rules_of_patterns_hold_in_order():
    choices = [Choice("gate", (1, 2)), Choice("a.bits", (2, 4), when={"gate": 2}), Choice("a.b.bits", (6, 8))]
    bits = Bits({"a.skip": 1, "a*": "{layer}.bits", "[xy]": 16}, Space(choices))
    architecture = {"gate": 2, "a.bits": 4, "a.b.bits": 6}
    paths = ("a", "a.skip", "a.b", "a.b.conv", "a.c", "x", "z", "")
    assert [bits.of(architecture, path) for path in paths] == [4, 1, 6, 6, 4, 16, 32, 32]
    assert bits.of({"gate": 1, "a.b.bits": 6}, "a.c") == 32
    assert bits.unused() == []
    assert pickle.loads(pickle.dumps(bits)).of(architecture, "a") == 4


def test_rules_are_checked(space):
    with pytest.raises(SpaceError, match="did you mean '2.bits'"):
        ModelSizeProfiler(space, bits="3.bits")
    with pytest.raises(ProfilerError, match=r"choices named like '\{layer\}.bitz', and .* has none"):
        ModelSizeProfiler(space, bits="{layer}.bitz")
    with pytest.raises(ProfilerError, match="takes bits from choice 'bits', so the profiler needs a space"):
        ModelSizeProfiler(None, bits="bits")
    with pytest.raises(ProfilerError, match="whole numbers of bits above 0, got 0"):
        BitOpsProfiler(None, IMAGE, bits=0)
    with pytest.raises(ProfilerError, match="`other_bits` beside `bits` must give whole"):
        BitOpsProfiler(None, IMAGE, bits=8, activation_bits=4, other_bits=0)
    with pytest.raises(TypeError, match="a mapping of patterns to these, or a function .* got 4.5"):
        BitOpsProfiler(None, IMAGE, bits={"*": 4.5})
    words = Space([Choice("bits", ("int8", "int4"))], build=lambda a: nn.Linear(2, 2))
    with pytest.raises(ProfilerError, match="choice 'bits', which `bits` takes bits from, .* got 'int8'"):
        ModelSizeProfiler(words, bits="bits")
    with pytest.raises(ProfilerError, match=r"`bits` for layer '0' of \{.* got 'many'"):
        ModelSizeProfiler(space, bits=lambda architecture, layer: "many", method="count")
    with pytest.raises(ProfilerError, match="a network by itself has no choices"):
        ModelSizeProfiler(space, bits="{layer}.bits", progress=False).profile_model(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ProfilerError, match="`uncounted` is one of"):
        BitOpsProfiler(None, IMAGE, bits=8, uncounted="raise")


def test_tables_of_functions_are_not_kept_on_disk(space, monkeypatch, tmp_path):
    monkeypatch.setenv("NASMW_CACHE", str(tmp_path))
    ModelSizeProfiler(space, bits=by_function, progress=False)
    assert not list(tmp_path.iterdir())
    ModelSizeProfiler(space, bits="{layer}.bits", progress=False)
    ModelSizeProfiler(space, bits="{layer}.bits", other_bits=16, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_operators_that_cannot_be_counted_are_named():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.rfft2(x)

    with pytest.warns(UserWarning, match="not counted: aten::_fft_r2c"):
        BitOpsProfiler(None, IMAGE, bits=8).profile_model(Fourier())
    with pytest.raises(ProfilerError, match="aten::_fft_r2c"):
        BitOpsProfiler(None, IMAGE, bits=8, uncounted="error").profile_model(Fourier())


# -- further choices of a ready space ---------------------------------------------------------------------------------


def test_a_ready_space_with_bits():
    plain = spaces.nats_size(10)
    further = [Choice(f"cells.{cell}.bits", (2, 4, 8)) for cell in (0, 1)]
    mixed = spaces.extended(plain, [*further, Choice("rate", (0.1, 0.2), when={further[0].name: 8})], name="mixed")
    assert mixed.size == plain.size * 3 * 4 and mixed.name == "mixed"
    small = torch.zeros(1, 3, 8, 8)
    macs, params = FlopsProfiler(mixed, small), ParamsProfiler(mixed)
    assert "declared tables" in repr(macs) and "declared tables" in repr(params)
    for architecture in mixed.sample(3, np.random.default_rng(0)):
        own = {name: architecture[name] for name in plain.names}
        assert macs.profile(architecture) == FlopsProfiler(plain, small).profile(own)
        assert str(mixed.build(architecture)) == str(plain.build(own))
        assert mixed.function_keys(mixed.candidates([architecture])) != mixed.function_keys(
            mixed.candidates([{**architecture, "cells.1.bits": 2 if architecture["cells.1.bits"] == 8 else 8}])
        )
    assert pickle.loads(pickle.dumps(mixed)).build(architecture) is not None


def test_further_choices_are_checked():
    plain = Space([Choice("a", (1, 2))])
    with pytest.raises(SpaceError, match="at least one further choice"):
        spaces.extended(plain, [])
    with pytest.raises(SpaceError, match="two choices are named 'a'"):
        spaces.extended(plain, [Choice("a", (1, 2))])
    with pytest.raises(TypeError, match="takes a Space first"):
        spaces.extended([Choice("a", (1, 2))], [Choice("b", (1, 2))])
    assert not spaces.extended(plain, [Choice("b", (1, 2))]).buildable


def test_bits_of_a_ready_space_equal_the_formula():
    plain = Space(CHOICES[:5], build=build, name="plain")
    mixed = spaces.extended(plain, CHOICES[5:])
    operations = BitOpsProfiler(mixed, IMAGE, bits="{layer}.bits", activation_bits="inputs", progress=False)
    some = mixed.sample(50, np.random.default_rng(0))
    assert operations.table is not None
    assert operations.profile_batch(some).tolist() == [operations_by_hand(a) for a in some]
