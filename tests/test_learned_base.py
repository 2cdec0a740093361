"""Learned profilers: one interface for all predictors, calibrated, and the same from a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nasmw import Candidates, Outcomes, Space, Status, spaces
from nasmw.errors import OrderError, ProfilerError, SpaceError
from nasmw.feasible import by_construction
from nasmw.profilers import LearnedProfiler
from nasmw.profilers.learned import (
    Costs,
    Features,
    Given,
    Group,
    Predictor,
    Ridge,
    Slots,
    make_predictor,
)
from nasmw.profilers.learned.boosting import Boosting
from nasmw.profilers.learned.calibration import student
from nasmw.profilers.learned.files import read_header
from nasmw.profilers.learned.gaussian_process import GaussianProcess
from nasmw.profilers.learned.mlp import MLP
from nasmw.testing import ProfilerContract, TableProfiler, toy_space

SPACE = toy_space()
QUICK: dict[str, Predictor] = {
    "ridge": Ridge(),
    "gp": GaussianProcess(iterations=8, learnt_on=60),
    "mlp": MLP(widths=(32, 32), epochs=40),
    "boosting": Boosting(trees=60, learning_rate=0.15),
}
KINDS = list(QUICK)


def latency(candidates: Candidates, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return what a device would say: no exact sum of tables, and noisy."""
    cost = TableProfiler(SPACE).profile_batch(candidates)
    other = TableProfiler(SPACE, "other", seed=1).profile_batch(candidates)
    return cost + 0.01 * cost * other + np.random.default_rng(seed).normal(0.0, noise, len(candidates))


def known(n: int, seed: int = 0) -> tuple[Candidates, np.ndarray]:
    candidates = SPACE.sample(n, np.random.default_rng(seed))
    return candidates, latency(candidates, seed=seed)


def made(kind: str, n: int = 200, **options: object) -> LearnedProfiler:
    return LearnedProfiler(SPACE, QUICK[kind], "slots", **options).fit(*known(n))  # type: ignore[arg-type]


class TestRidge(ProfilerContract):
    def make(self, space: Space) -> LearnedProfiler:
        return made("ridge", 60)


class TestGaussianProcess(ProfilerContract):
    tolerance = 1e-8

    def make(self, space: Space) -> LearnedProfiler:
        return made("gp", 60)


class TestMLP(ProfilerContract):
    tolerance = 1e-5

    def make(self, space: Space) -> LearnedProfiler:
        return made("mlp", 60)


class TestBoosting(ProfilerContract):
    def make(self, space: Space) -> LearnedProfiler:
        return made("boosting", 60)


class TestLogarithms(ProfilerContract):
    def make(self, space: Space) -> LearnedProfiler:
        return made("ridge", 60, transform="log", name="energy", unit="J", device="phone")


class TestFrozen(ProfilerContract):
    def make(self, space: Space) -> LearnedProfiler:
        return made("ridge", 60).freeze()


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind: str) -> None:
    profiler = made(kind, 400)
    test, values = known(500, seed=1)
    constant = np.abs(values - known(400)[1].mean()).mean()
    assert np.abs(profiler.profile_batch(test) - values).mean() < 0.2 * constant
    assert profiler.version == 1 and profiler.fitted and len(profiler.samples) == 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transform", ["none", "log"])
def test_intervals_hold_as_often_as_they_say(kind: str, transform: str) -> None:
    profiler = made(kind, 400, transform=transform)
    test, values = known(1500, seed=1)
    for coverage, slack in ((0.5, 0.1), (0.9, 0.06)):
        low, high = profiler.interval(test, coverage)
        assert abs(((low <= values) & (values <= high)).mean() - coverage) < slack
    std = profiler.std(test)
    said = profiler.profile_batch(test)
    assert abs((np.abs(values - said) <= 1.645 * std).mean() - 0.9) < 0.07


@pytest.mark.parametrize("n", [6, 12, 25])
def test_intervals_of_few_samples_are_wide_enough(n: int) -> None:
    held = []
    for seed in range(40):
        candidates, values = known(n, seed)
        profiler = LearnedProfiler(SPACE, "ridge", "counts").fit(candidates, values)
        test, truth = known(50, seed + 1000)
        low, high = profiler.interval(test)
        held.append(((low <= truth) & (truth <= high)).mean())
    assert 0.82 < np.mean(held) < 0.99


def test_the_same_from_a_file_in_a_new_process(tmp_path: Path) -> None:
    test, _ = known(50, seed=1)
    expected = []
    for kind in KINDS:
        profiler = made(kind, 100, name="ms", unit="ms", device="phone", metric="seen")
        profiler.save(tmp_path / f"{kind}.npz")
        expected.append(profiler.profile_batch(test).tobytes().hex() + profiler.std(test).tobytes().hex())
        expected.append(f"{profiler!r} 1 seen")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{kind}.npz" for kind in KINDS)
    code = (
        "import sys, numpy as np\n"
        "from nasmw.profilers import LearnedProfiler\n"
        "from nasmw.testing import toy_space\n"
        "test = toy_space().sample(50, np.random.default_rng(1))\n"
        "for path in sys.argv[1:]:\n"
        "    profiler = LearnedProfiler.load(path, toy_space())\n"
        "    print(profiler.profile_batch(test).tobytes().hex() + profiler.std(test).tobytes().hex())\n"
        "    print(repr(profiler), profiler.version, profiler.metric)\n"
    )
    paths = [str(tmp_path / f"{kind}.npz") for kind in KINDS]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_one_learns_on(kind: str, tmp_path: Path) -> None:
    profiler = made(kind, 60)
    profiler.save(tmp_path / "latency.npz")
    copy = LearnedProfiler.load(tmp_path / "latency.npz", SPACE)
    for one in (profiler, copy):
        one.update(outcomes(*known(20, seed=5)))
    test, _ = known(50, seed=1)
    assert np.array_equal(copy.profile_batch(test), profiler.profile_batch(test))
    assert copy.version == profiler.version == 2


def outcomes(candidates: Candidates, values: np.ndarray, metric: str = "measured_latency_ms") -> Outcomes:
    n = len(candidates)
    return Outcomes(
        candidates.with_ids(np.arange(n)), [Status.COMPLETED] * n, np.ones((n, 1)), {metric: values, "accuracy": values}
    )


def test_update_adds_measurements() -> None:
    profiler = made("ridge", 30)
    test, values = known(300, seed=1)
    before = np.abs(profiler.profile_batch(test) - values).mean()
    candidates, measured = known(200, seed=2)
    profiler.update(outcomes(candidates, measured))
    assert profiler.version == 2 and len(profiler.samples) == 230
    assert np.abs(profiler.profile_batch(test) - values).mean() < 0.9 * before
    whole = LearnedProfiler(SPACE, "ridge", "slots").fit(
        np.concatenate([known(30)[0].codes, candidates.codes]), np.concatenate([known(30)[1], measured])
    )
    assert np.array_equal(whole.profile_batch(test), profiler.profile_batch(test))


def test_update_takes_only_what_is_measured() -> None:
    profiler = made("ridge", 30)
    candidates, measured = known(6, seed=2)
    profiler.update(outcomes(candidates, measured, metric="something else"))
    assert profiler.version == 1
    measured[2] = np.nan
    told = outcomes(candidates, measured)
    statuses = [Status.COMPLETED, Status.FAILED, *[Status.COMPLETED] * 3, Status.DUPLICATE]
    profiler.update(told.evolve(status=statuses))
    assert profiler.version == 2
    assert np.array_equal(profiler.samples.codes[30:], candidates.codes[[0, 3, 4]])


def test_update_waits_for_enough_samples() -> None:
    profiler = LearnedProfiler(SPACE, "ridge", "counts")
    for seed in range(2):
        profiler.update(outcomes(*known(1, seed)))
        assert not profiler.fitted and profiler.version == 0
    profiler.update(outcomes(*known(5, 7)))
    assert profiler.fitted and len(profiler.samples) == 7


def test_a_frozen_one_is_a_table_that_does_not_change() -> None:
    profiler = made("ridge", 60)
    assert not by_construction(profiler <= 30)
    assert profiler.freeze() is profiler and by_construction(profiler <= 30)
    profiler.update(outcomes(*known(20, seed=5)))
    assert profiler.version == 1 and len(profiler.samples) == 60
    with pytest.raises(OrderError, match="is frozen: strategies may rely on its table"):
        profiler.fit(*known(20))


def test_a_linear_one_is_an_exact_table() -> None:
    profiler = LearnedProfiler(SPACE, "ridge", "slots + counts").fit(*known(100))
    test, _ = known(200, seed=1)
    linear = profiler.predictor.predict(profiler.encoding.encode(test)).mean
    _, values = known(100)
    assert np.allclose(profiler.profile_batch(test), linear * values.std() + values.mean(), rtol=1e-10)
    everything = profiler.profile_batch(SPACE.at(range(SPACE.size)))
    assert profiler.bounds().low == pytest.approx(everything.min())  # type: ignore[union-attr]
    assert LearnedProfiler(SPACE, "ridge", "adjacency").fit(*known(100)).table is None
    assert made("gp", 60).table is None and made("gp", 60).bounds() is None


def test_weights_count() -> None:
    candidates, values = known(40)
    twice = np.concatenate([candidates.codes, candidates.codes[:10]])
    doubled = LearnedProfiler(SPACE, Ridge(penalty=1.0), "counts").fit(twice, np.concatenate([values, values[:10]]))
    weights = np.where(np.arange(40) < 10, 2.0, 1.0)
    # A penalty is against weights of mean 1, and so many samples.
    weighted = LearnedProfiler(SPACE, Ridge(penalty=0.8), "counts").fit(candidates, values, weights=weights)
    test, _ = known(50, seed=1)
    assert np.allclose(doubled.profile_batch(test), weighted.profile_batch(test), rtol=1e-9)


@pytest.mark.parametrize("kind", ["ridge", "gp"])
def test_samples_left_out_are_predicted_exactly(kind: str) -> None:
    predictor = Ridge(penalty=0.3) if kind == "ridge" else GaussianProcess(iterations=1, learnt_on=40)
    candidates, values = known(40)
    features = Slots().encode(candidates)
    values = (values - values.mean()) / values.std()
    weights = np.ones(40)
    predictor.fit(features, values, weights)
    apart = predictor.left_out()
    assert apart is not None
    rest = np.arange(40) != 7
    if kind == "ridge":
        other: Predictor = predictor.fresh()
        other.fit(features[rest], values[rest], weights[rest])
    else:
        # The same kernels and scaling, without the row.
        other = predictor.fresh()
        state = predictor.state()
        state = {**state, "samples": state["samples"][rest], "noise": state["noise"][rest]}
        other.restore({**state, "answer": np.zeros(39)}, features.groups)
        kernel = other._cholesky() @ other._cholesky().T  # type: ignore[attr-defined]
        other.restore({**state, "answer": np.linalg.solve(kernel, values[rest])}, features.groups)
    one = other.predict(features[7:8])
    assert apart.prediction.mean[7] == pytest.approx(one.mean[0], rel=1e-6)
    assert apart.prediction.spread[7] == pytest.approx(one.spread[0], rel=1e-4)


def test_predictors_are_reproducible_and_leave_global_states_alone() -> None:
    test, _ = known(50, seed=1)
    for kind in KINDS:
        torch.manual_seed(1)
        np.random.seed(1)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        first = made(kind, 80).profile_batch(test)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        torch.manual_seed(2)
        assert np.array_equal(made(kind, 80).profile_batch(test), first), kind


def test_the_losses_of_a_network_are_kept(tmp_path: Path) -> None:
    profiler = made("mlp", 100)
    history = profiler.predictor.history  # type: ignore[attr-defined]
    assert history.shape == (40, 2) and np.isfinite(history).all()
    assert history[-1, 0] < 0.3 * history[0, 0]
    profiler.save(tmp_path / "p.npz")
    loaded = LearnedProfiler.load(tmp_path / "p.npz", SPACE)
    assert np.array_equal(loaded.predictor.history, history)  # type: ignore[attr-defined]
    assert np.isnan(made("mlp", 20).predictor.history[:, 1]).all()  # type: ignore[attr-defined]


# -- what cannot be learnt from -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_samples(kind: str) -> None:
    with pytest.raises(ProfilerError, match=r"needs at least \d+ samples to learn from, got 2"):
        made(kind, 2)


def test_values_that_cannot_be_learnt_from() -> None:
    profiler = LearnedProfiler(SPACE)
    candidates, values = known(20)
    broken = values.copy()
    broken[[3, 5]] = np.nan
    with pytest.raises(ProfilerError, match="2 of 20 values of 'latency_ms' are not finite, the first in row 3"):
        profiler.fit(candidates, broken)
    with pytest.raises(ProfilerError, match="all 20 values of 'latency_ms' are 4: nothing can be learnt"):
        profiler.fit(candidates, np.full(20, 4.0))
    with pytest.raises(ProfilerError, match=r"one value per architecture, got \(19,\) for 20"):
        profiler.fit(candidates, values[1:])
    with pytest.raises(ProfilerError, match="positive values only; row 4 has -1"):
        LearnedProfiler(SPACE, transform="log").fit(candidates, np.where(np.arange(20) == 4, -1.0, np.abs(values)))
    with pytest.raises(ProfilerError, match="weights are 20 finite numbers above 0"):
        profiler.fit(candidates, values, weights=np.zeros(20))
    assert not profiler.fitted


def test_networks_of_another_space() -> None:
    other = spaces.nasbench201()
    foreign = other.sample(10, np.random.default_rng(0))
    profiler = LearnedProfiler(SPACE)
    with pytest.raises(ProfilerError, match="was given candidates of <Space"):
        profiler.fit(foreign, np.arange(10.0))
    with pytest.raises(SpaceError, match="has no choice 'edge_0_1'"):
        profiler.fit(list(foreign), np.arange(10.0))
    with pytest.raises(ProfilerError, match=r"another space|candidates of"):
        made("ridge").profile_batch(foreign)
    with pytest.raises(ProfilerError, match="candidates of"):
        made("gp").profile_batch(foreign)


def test_nothing_learnt_yet(tmp_path: Path) -> None:
    profiler = LearnedProfiler(SPACE)
    candidates, _ = known(3)
    for call in (
        lambda: profiler.profile_batch(candidates),
        lambda: profiler.profile(next(iter(candidates))),
        lambda: profiler.std(candidates),
        lambda: profiler.interval(candidates),
        lambda: profiler.save(tmp_path / "p.npz"),
        profiler.freeze,
    ):
        with pytest.raises(OrderError, match=r"has learnt nothing yet; call fit\("):
            call()


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="takes a Space first"):
        LearnedProfiler(3)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="no predictor 'rigde'; did you mean 'ridge'"):
        LearnedProfiler(SPACE, "rigde")
    with pytest.raises(TypeError, match="a predictor is a name such as 'ridge'"):
        LearnedProfiler(SPACE, 3)  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="has no parameter 'penaltyy'; did you mean 'penalty'"):
        make_predictor("ridge", penaltyy=3)
    with pytest.raises(ProfilerError, match="the transform of a learned profiler"):
        LearnedProfiler(SPACE, transform="square")  # type: ignore[arg-type]
    with pytest.raises(ProfilerError, match="needs a choice|has no choice 'resolution'"):
        LearnedProfiler(SPACE, encoding="slots * resolution")
    with pytest.raises(ProfilerError, match="update_weight is a number above 0"):
        LearnedProfiler(SPACE, update_weight=0.0)
    with pytest.raises(ProfilerError, match="metric to learn from"):
        LearnedProfiler(SPACE, metric="")
    with pytest.raises(ProfilerError, match="above 0 and below 1, got 90"):
        made("ridge").interval(known(3)[0], 90)
    with pytest.raises(ProfilerError, match="takes a number above 0 or None"):
        Ridge(penalty=-1)
    with pytest.raises(ProfilerError, match="held_out"):
        MLP(held_out=0.0)
    with pytest.raises(ProfilerError, match="most=...\\) takes a whole number of at least 1"):
        GaussianProcess(most=0)


# -- files --------------------------------------------------------------------------------------------------------


def test_files_of_another_space(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    made("ridge").save(path)
    with pytest.raises(ProfilerError, match="saved for the space 'toy' with fingerprint .* names, options or"):
        LearnedProfiler.load(path, spaces.nasbench201())


def test_files_of_a_space_that_costs_something_else(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    narrow = spaces.ofa_mobilenetv3(width=1.0, resolutions=[128])
    batch = narrow.sample(30, np.random.default_rng(0))
    LearnedProfiler(narrow, encoding="costs").fit(batch, np.arange(30.0)).save(path)
    with pytest.raises(ProfilerError, match="cost something else"):
        LearnedProfiler.load(path, spaces.ofa_mobilenetv3(width=1.2, resolutions=[128]))


def test_files_that_are_no_profilers(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(FileNotFoundError):
        LearnedProfiler.load(path, SPACE)
    path.write_bytes(b"something else")
    with pytest.raises(ProfilerError, match="no saved learned profiler"):
        LearnedProfiler.load(path, SPACE)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ProfilerError, match="no saved learned profiler"):
        LearnedProfiler.load(path, SPACE)
    made("ridge").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProfilerError, match="or it is damaged"):
        LearnedProfiler.load(path, SPACE)


def test_files_of_a_later_format(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    made("ridge").save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    header["format"] = 99
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(ProfilerError, match="has format 99, this version reads up to 1; update nasmw"):
        LearnedProfiler.load(path, SPACE)


def test_files_hold_no_pickled_objects(tmp_path: Path) -> None:
    for kind in KINDS:
        path = tmp_path / f"{kind}.npz"
        made(kind, 60).save(path)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                header = archive.read(name)[:256]
                assert b"'descr': '|O'" not in header
        assert read_header(path)["predictor"]["kind"] == kind
        assert read_header(path)["samples"] == 60


def test_given_encodings_go_with_the_file(tmp_path: Path) -> None:
    candidates, values = known(60)
    everything = SPACE.at(range(SPACE.size))
    proxies = Given("proxies", (everything.codes, latency(everything)[:, None]), ["proxy"])
    profiler = LearnedProfiler(SPACE, "ridge", "counts + proxies", given={"proxies": proxies}).fit(candidates, values)
    profiler.save(tmp_path / "p.npz")
    copy = LearnedProfiler.load(tmp_path / "p.npz", SPACE, given={"proxies": proxies})
    assert np.array_equal(copy.profile_batch(candidates), profiler.profile_batch(candidates))
    with pytest.raises(ProfilerError, match="there is no encoding 'proxies'"):
        LearnedProfiler.load(tmp_path / "p.npz", SPACE)


# -- parts --------------------------------------------------------------------------------------------------------


def test_a_predictor_of_ones_own(tmp_path: Path) -> None:
    import attrs

    @attrs.define(eq=False)
    class Mean(Predictor):
        """Says the mean."""

        kind = "mean of the tests"
        shift: float = 0.0

        def fit(self, features: Features, values: np.ndarray, weights: np.ndarray) -> None:
            pass

        def predict(self, features: Features):  # type: ignore[no-untyped-def]
            from nasmw.profilers.learned import Prediction

            return Prediction(np.full(len(features), self.shift), np.ones(len(features)))

        def state(self) -> dict[str, np.ndarray]:
            return {}

        def restore(self, state: dict[str, np.ndarray], groups: tuple[Group, ...]) -> None:
            pass

    candidates, values = known(30)
    profiler = LearnedProfiler(SPACE, Mean(shift=1.0), "counts").fit(candidates, values)
    assert profiler.profile_batch(candidates)[0] == pytest.approx(values.mean() + values.std())
    profiler.save(tmp_path / "p.npz")
    assert LearnedProfiler.load(tmp_path / "p.npz", SPACE).profile_batch(candidates)[0] == pytest.approx(
        values.mean() + values.std()
    )


def test_students_quantiles() -> None:
    for freedom, expected in ((4, 2.1318), (9, 1.8331), (30, 1.6973)):
        assert student(0.95, freedom) == pytest.approx(expected, rel=3e-3)


def test_importing_profilers_does_not_import_what_learns() -> None:
    code = "import sys, nasmw.profilers; print('nasmw.profilers.learned' in sys.modules, 'lightgbm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.split() == ["False", "False"]


def test_lightgbm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ImportError, match=r"nasmw\[boosting\]"):
        made("boosting")


def test_costs_may_be_of_tables() -> None:
    table = made("ridge").table
    costs = Costs(tables={"cost": table})  # type: ignore[dict-item]
    profiler = LearnedProfiler(SPACE, "ridge", costs).fit(*known(60))
    assert profiler.table is not None
