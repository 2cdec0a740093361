"""Encodings that are learnt from the architectures of a space alone: Arch2Vec, Cate, and principal components."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nasmw import Candidates, Choice, Space
from nasmw.candidates import Floats
from nasmw.errors import ProfilerError
from nasmw.profilers.learned import Adjacency, Arch2Vec, Cate, GraphPCA, LearnedProfiler, TrainedEncoding, make_encoding
from nasmw.profilers.learned import arch2vec as arch2vec_module
from nasmw.profilers.learned import cate as cate_module
from nasmw.profilers.learned.cate import _tensors
from nasmw.profilers.learned.graphs import graphs_of
from nasmw.spaces import fbnet, nasbench201
from nasmw.testing import toy_space

CLASSES = (Arch2Vec, Cate, GraphPCA)


def space_for(cls: type[TrainedEncoding]) -> Space:
    """Return a small space; one that knows what networks cost, for the encoding that needs to."""
    return nasbench201() if cls is Cate else toy_space()


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arch2vec_module, "STEPS", 120)
    monkeypatch.setattr(cate_module, "STEPS", 120)
    monkeypatch.setattr(arch2vec_module, "BATCH", 48)
    monkeypatch.setattr(TrainedEncoding, "samples", 512)


def told(values: Floats, wanted: npt.NDArray[np.float64]) -> float:
    """Return how much of the variance of some columns a straight line on an encoding explains, on the later half."""
    design = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    half = len(values) // 2
    left = wanted[half:] - design[half:] @ np.linalg.lstsq(design[:half], wanted[:half], rcond=None)[0]
    return float(1.0 - left.var(axis=0).sum() / wanted[half:].var(axis=0).sum())


@pytest.mark.parametrize("cls", CLASSES)
def test_little_of_a_graph_is_lost(cls: type[TrainedEncoding]) -> None:
    space = nasbench201()
    networks = space.sample(1000, np.random.default_rng(9))
    share = told(cls().encode(networks).values, Adjacency().encode(networks).values)
    assert share > {Arch2Vec: 0.8, Cate: 0.5, GraphPCA: 0.99}[cls]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_same_seed_gives_the_same_and_leaves_torch_alone(
    cls: type[TrainedEncoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arch2vec_module, "STEPS", 5)
    monkeypatch.setattr(cate_module, "STEPS", 5)
    codes = space_for(cls).sample(30, np.random.default_rng(0)).codes
    before = torch.random.get_rng_state()
    first, again, other = (
        cls("dim8", seed).encode(Candidates.of(space_for(cls), codes)).values for seed in ("seed1", "seed1", "seed2")
    )
    assert first.shape == (30, 8)
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("cls", CLASSES)
def test_columns_have_one_scale_and_rows_stand_alone(
    cls: type[TrainedEncoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arch2vec_module, "STEPS", 20)
    monkeypatch.setattr(cate_module, "STEPS", 20)
    space = space_for(cls)
    encoding = cls("dim8")
    networks = space.sample(600, np.random.default_rng(3))
    values = encoding.encode(networks).values
    assert 0.7 < values.var(axis=0).mean() < 1.3 and np.abs(values.mean(axis=0)).max() < 0.4
    assert np.allclose(encoding.encode(networks[5:6]).values, values[5:6], atol=1e-5)
    assert encoding.encode(networks[:0]).values.shape == (0, 8)
    assert len(encoding.names(space)) == encoding.width(space) == 8


def test_texts_say_what_is_not_usual() -> None:
    for text in ("arch2vec", "cate(dim16, seed3)", "graph_pca(dim4)"):
        assert str(make_encoding(text)) == text
    with pytest.raises(ProfilerError, match="takes words such as 'dim16'"):
        make_encoding("arch2vec(wide)")
    with pytest.raises(ProfilerError, match="multiple of 4"):
        Cate("dim6")
    with pytest.raises(ProfilerError, match="takes words such as"):
        GraphPCA("dim0")
    alike = Space([Choice("only", (1,))])
    with pytest.raises(ProfilerError, match="all graphs of .* are alike"):
        GraphPCA().plan(alike)


def test_a_space_without_costs_has_no_pairs_of_equal_cost() -> None:
    space = toy_space()
    with pytest.raises(ProfilerError, match="has no tables of costs"):
        Cate().encode(space.sample(3, np.random.default_rng(0)))


def test_nodes_see_what_leads_to_them() -> None:
    graphs = graphs_of(nasbench201().sample(20, np.random.default_rng(0)))
    _, sees = _tensors(graphs)
    walks = np.linalg.matrix_power(graphs.adjacency.astype(float) + np.eye(8), 8) > 0
    assert np.array_equal(sees.numpy(), walks.transpose(0, 2, 1))


def test_profilers_learn_from_them() -> None:
    space = nasbench201()
    networks = space.sample(300, np.random.default_rng(0))
    values = np.asarray(space.tables["macs"](space, None).evaluate(networks), dtype=np.float64)
    profiler = LearnedProfiler(space, "ridge", "arch2vec + graph_pca").fit(networks[:200], values[:200])
    said = profiler.profile_batch(networks[200:])
    assert np.mean((said - values[200:]) ** 2) < 0.05 * values.var()


def test_a_chain_whose_edges_never_change_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arch2vec_module, "STEPS", 3)
    space = fbnet(input_size=32)
    assert Arch2Vec("dim4").encode(space.sample(3, np.random.default_rng(0))).values.shape == (3, 4)
