from __future__ import annotations

import collections
import hashlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from supernets import FEATURES, QUICK, Tiny, cost_of, points
from torch import nn

from nasmw import Chain, Filter, Search
from nasmw.context import Context
from nasmw.errors import ConstraintError, EvaluationError, LogMismatchError, OrderError, ProfilerError, SpaceError
from nasmw.executors import Processes
from nasmw.log import Log
from nasmw.oneshot import DatasetData, Hook, Recipe, SupernetEvaluator, TensorData, Training, recalibrate
from nasmw.oneshot.data import moved
from nasmw.strategies import Evolution, PolicyGradient, Random
from nasmw.strategies.oneshot import DARTS, GumbelDARTS, ProxylessNAS
from nasmw.testing import TableProfiler, toy_space

FOUR = Recipe(epochs=4, rate=0.1)


class Fail(Hook):
    """Breaks off after an epoch, as if the process had ended."""

    def __init__(self, after: int) -> None:
        self.after = after

    def epoch(self, training, record):
        if training.epochs == self.after:
            raise SystemExit("broken off")


class Collect(Hook):
    def __init__(self):
        self.started, self.losses, self.epochs = [], [], []

    def start(self, training):
        self.started.append(training.epochs)

    def step(self, training, loss):
        self.losses.append(loss)

    def epoch(self, training, record):
        self.epochs.append(record["loss"])


def constant(trial):
    return 1.0


def rows(result):
    return [(t.number, t.codes, dict(t.columns), dict(t.metrics), str(t.status)) for t in result.trials]


# -- a training that is interrupted ----------------------------------------------------------------------------


def search_of(kind, log, hooks=(), recipe=FOUR):
    """A search of one of four kinds, on a space and data of its own."""
    space = Tiny()
    cost = cost_of(space)
    if kind == "supernet":
        evaluate = SupernetEvaluator(space, points(), recipe, sandwich=cost, hooks=hooks)
        return Search(space, Chain(Evolution(population=4, tournament=2), Filter(cost <= 9)), evaluate, log=log, seed=3)
    strategy = {"DARTS": DARTS, "GumbelDARTS": GumbelDARTS, "ProxylessNAS": ProxylessNAS}[kind]
    chain = Chain(strategy(points(), recipe, architecture_rate=0.1, hooks=hooks), Filter(cost <= 9))
    return Search(space, chain, constant, log=log, seed=3)


@pytest.mark.parametrize("kind", ["DARTS", "GumbelDARTS", "ProxylessNAS", "supernet"])
@pytest.mark.parametrize("after", [1, 3])
def test_training_goes_on_where_it_was_broken_off(kind, after, tmp_path):
    whole = search_of(kind, tmp_path / "whole.db").run(trials=6)
    with pytest.raises(SystemExit):
        search_of(kind, tmp_path / "run.db", hooks=[Fail(after)]).run(trials=6)
    collect = Collect()
    result = search_of(kind, tmp_path / "run.db", hooks=[collect]).run(trials=6)
    assert collect.started == [after] and len(collect.epochs) == 4 - after
    assert rows(result) == rows(whole)
    digests = []
    for name in ("whole.db", "run.db"):
        with Log(tmp_path / name, readonly=True) as log:
            notes = log.notes()
        assert [note["epoch"] for note in notes] == [1, 2, 3, 4]
        (file,) = (tmp_path / f"{name}.weights").iterdir()
        assert file.name == notes[-1]["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == notes[-1]["sha256"]
        digests.append([note["loss"] for note in notes])
    assert digests[0] == digests[1]


SCRIPT = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_oneshot_training import search_of
from nasmw.oneshot import Hook

class Kill(Hook):
    def step(self, training, loss):
        if training.epochs == 2:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    search_of("DARTS", {log!r}, hooks=[Kill()]).run(trials=5)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_training_that_was_killed_goes_on(tmp_path):
    whole = search_of("DARTS", tmp_path / "whole.db").run(trials=5)
    code = SCRIPT.format(path=[str(Path(__file__).parent)], log=str(tmp_path / "run.db"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    collect = Collect()
    assert rows(search_of("DARTS", tmp_path / "run.db", hooks=[collect]).run(trials=5)) == rows(whole)
    assert collect.started == [2]


def test_file_that_the_log_does_not_know_is_not_used(tmp_path, monkeypatch):
    whole = search_of("DARTS", tmp_path / "whole.db").run(trials=3)
    noted = Log.note

    def killed(self, data):
        if data["epoch"] == 3:
            raise SystemExit("between file and log")
        noted(self, data)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Log, "note", killed)
        search_of("DARTS", tmp_path / "run.db").run(trials=3)
    assert sorted(os.listdir(tmp_path / "run.db.weights")) == ["darts-2.pt", "darts-3.pt"]
    collect = Collect()
    assert rows(search_of("DARTS", tmp_path / "run.db", hooks=[collect]).run(trials=3)) == rows(whole)
    assert collect.started == [2]


def test_file_that_was_changed_is_not_used(tmp_path, caplog):
    with pytest.raises(SystemExit):
        search_of("DARTS", tmp_path / "run.db", hooks=[Fail(2)]).run(trials=3)
    (tmp_path / "run.db.weights" / "darts-2.pt").write_bytes(b"something else")
    collect = Collect()
    search_of("DARTS", tmp_path / "run.db", hooks=[collect]).run(trials=3)
    assert collect.started == [0]
    assert "after epoch 2 are not in" in caplog.text


def test_other_recipe_starts_afresh(tmp_path):
    with pytest.raises(SystemExit):
        search_of("DARTS", tmp_path / "run.db", hooks=[Fail(2)]).run(trials=3)
    collect = Collect()
    search_of("DARTS", tmp_path / "run.db", hooks=[collect], recipe=QUICK).run(trials=3)
    assert collect.started == [0]


def test_trained_supernet_is_not_trained_again(tmp_path):
    for kind in ("DARTS", "supernet"):
        first = search_of(kind, tmp_path / f"{kind}.db").run(trials=3)
        collect = Collect()
        longer = search_of(kind, tmp_path / f"{kind}.db", hooks=[collect]).run(trials=8)
        assert collect.losses == [] and rows(longer)[:3] == rows(first)
        assert rows(longer) == rows(search_of(kind, tmp_path / f"{kind}-at-once.db").run(trials=8))


def test_trials_of_another_supernet_are_not_mixed(tmp_path):
    search_of("supernet", tmp_path / "run.db").run(trials=3)
    with pytest.raises(LogMismatchError, match="scored by a supernet which was trained in another way"):
        search_of("supernet", tmp_path / "run.db", recipe=QUICK).run(trials=6)


# -- the evaluator ---------------------------------------------------------------------------------------------


def evaluator(**settings):
    space = Tiny()
    made = SupernetEvaluator(space, points(), settings.pop("recipe", QUICK), **settings)
    made.prepare(Context(space, seed=settings.get("seed", 0)))
    return made


def test_score_is_that_of_the_network_with_its_own_statistics():
    made = evaluator()
    architecture = {"hidden": 4, "act": 0, "depth": 2, "op0": "tanh", "op1": "linear"}
    before = {name: value.clone() for name, value in made.supernet.state_dict().items()}
    model = made.supernet.build(architecture, weights=True)
    assert recalibrate(model, [inputs for inputs, _ in points().batches("train")]) == 1
    inputs, targets = next(
        TensorData(points()._splits["train"], points()._splits["validation"], 24).batches("validation")
    )
    expected = float((model(inputs).argmax(1) == targets).float().mean())
    assert made.score(architecture) == pytest.approx(expected, abs=2 / 24)
    assert made.score(architecture) == made.score(architecture)
    assert all(torch.equal(value, before[name]) for name, value in made.supernet.state_dict().items())


def test_training_lowers_the_loss_and_leaves_the_space_alone():
    space = Tiny()
    before = {name: value.clone() for name, value in space.state_dict().items()}
    made = SupernetEvaluator(space, points(), Recipe(epochs=15, rate=0.1))
    noise = torch.get_rng_state()
    made.prepare(Context(space))
    assert torch.equal(torch.get_rng_state(), noise)
    assert made.history[-1]["loss"] < made.history[0]["loss"] - 0.02
    assert all(torch.equal(value, before[name]) for name, value in space.state_dict().items())


class Watch(Tiny):
    """Keeps what is activated."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def activate(self, architecture):
        type(self).paths.append(dict(architecture))
        return super().activate(architecture)

    paths: list = []  # noqa: RUF012


@pytest.mark.parametrize("by_choice", [True, False])
@pytest.mark.parametrize("given", ["within", "chain", "nothing"])
def test_paths_are_drawn_uniformly_within_the_limits(given, by_choice):
    space = Watch()
    cost = cost_of(space)
    Watch.paths = []
    recipe = Recipe(epochs=100, rate=0.01)
    if given == "chain":
        made = SupernetEvaluator(space, points(), recipe, by_choice=by_choice)
        Search(space, Chain(Random(), Filter(cost <= 6)), made).run(trials=1)
    else:
        within = (cost <= 6,) if given == "within" else None
        made = SupernetEvaluator(space, points(), recipe, within=within, by_choice=by_choice)
        made.prepare(Context(space))
    drawn = space.candidates(Watch.paths[:300])
    values = cost.profile_batch(drawn)
    everything = space.at(range(space.size))
    allowed = cost.profile_batch(everything) <= (6 if given != "nothing" else 1e9)
    assert values.max() <= (6 if given != "nothing" else 1e9)
    keys = {key: number for number, key in enumerate(everything[allowed].row_keys())}
    counts = np.bincount([keys[key] for key in drawn.row_keys()], minlength=len(keys))
    options = [len(choice.options) for choice in space.choices]
    weights = np.where(space.active(everything[allowed].codes) | (not by_choice), 1, options).prod(axis=1)
    expected = len(drawn) * weights / weights.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < len(keys) - 1 + 5 * np.sqrt(2 * (len(keys) - 1))


def test_sandwich_trains_the_largest_and_the_smallest_network_within_the_limits():
    space = Watch()
    cost = cost_of(space)
    Watch.paths = []
    made = SupernetEvaluator(
        space, points(), Recipe(epochs=1), within=(cost <= 12) & (cost >= 5), sandwich=cost, distill=True, paths=2
    )
    made.prepare(Context(space))
    values = cost.profile_batch(space.candidates(Watch.paths)).reshape(-1, 4)
    assert (values[:, 0] == 12).all() and (values[:, 1] == 5).all()
    assert len(values) == points().steps("train")


def test_distillation_teaches_what_the_largest_network_says():
    space = Tiny()
    cost = cost_of(space)
    plain, taught = (
        SupernetEvaluator(space, points(), Recipe(epochs=2, rate=0.1), sandwich=cost, distill=distill)
        for distill in (False, True)
    )
    for made in (plain, taught):
        made.prepare(Context(space))
    assert plain.history[0]["loss"] != taught.history[0]["loss"]


@pytest.mark.parametrize("strategy", [Random(), PolicyGradient(batch=2)], ids=["SPOS", "ENAS"])
def test_existing_strategies_search_a_supernet(strategy):
    space = Tiny()
    cost = cost_of(space)
    result = Search(space, Chain(strategy, Filter(cost <= 9)), SupernetEvaluator(space, points(), QUICK)).run(trials=5)
    assert len(result.completed) == 5
    assert all(0 <= trial.metrics["accuracy"] <= 1 for trial in result.trials)


@pytest.mark.parametrize("log", [True, False], ids=["log", "no log"])
def test_workers_score_as_this_process_does(log, tmp_path):
    results = []
    for number, executor in enumerate((None, Processes(1))):
        space = Tiny()
        made = SupernetEvaluator(space, points(), QUICK)
        path = tmp_path / f"{number}.db" if log else None
        results.append(Search(space, Random(), made, executor=executor, log=path).run(trials=3))
    assert rows(results[0]) == rows(results[1])


def test_pickled_evaluator_reads_its_file(tmp_path):
    space = Tiny()
    made = SupernetEvaluator(space, points(), QUICK)
    Search(space, Random(), made, log=tmp_path / "run.db").run(trials=1)
    copy = pickle.loads(pickle.dumps(made))
    assert copy._supernet is None
    architecture = {"hidden": 2, "act": 0, "depth": 1, "op0": "skip"}
    assert copy.score(architecture) == made.score(architecture)
    (file,) = (tmp_path / "run.db.weights").iterdir()
    file.unlink()
    with pytest.raises(OrderError, match="has no weights yet"):
        pickle.loads(pickle.dumps(made)).score(architecture)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda s: SupernetEvaluator(toy_space(), points()), SpaceError, "has no modules: write the space as a class"),
        (lambda s: SupernetEvaluator(s, [1, 2]), TypeError, "takes data that give batches"),
        (lambda s: SupernetEvaluator(s, points(), paths=0), ValueError, "paths=.* at least 1"),
        (lambda s: SupernetEvaluator(s, points(), distill=True), ValueError, "sandwich=macs"),
        (lambda s: SupernetEvaluator(s, points(), sandwich=TableProfiler(s)), ProfilerError, "a CostTable"),
        (lambda s: SupernetEvaluator(s, points(), sandwich="macs"), TypeError, "takes a profiler"),
        (lambda s: SupernetEvaluator(s, points(), within=5), TypeError, "takes limits such as"),
    ],
)
def test_evaluator_checks_its_arguments(make, error, text):
    with pytest.raises(error, match=text):
        make(Tiny())


def test_evaluator_has_weights_after_training_only():
    with pytest.raises(OrderError, match="a Search trains it"):
        SupernetEvaluator(Tiny(), points()).score({"hidden": 2, "act": 0, "depth": 1, "op0": "skip"})


def test_evaluator_is_of_one_space():
    with pytest.raises(SpaceError, match="the search is on"):
        SupernetEvaluator(Tiny(), points()).prepare(Context(toy_space()))


def test_limits_that_leave_nothing_are_an_error():
    space = Tiny()
    with pytest.raises(ConstraintError):
        SupernetEvaluator(space, points(), QUICK, within=(cost_of(space) <= -1,)).prepare(Context(space))


# -- data, recipes, recalibration ------------------------------------------------------------------------------


def test_tensor_data_go_through_all_examples_once():
    data = points(24, batch=8)
    generator = torch.Generator().manual_seed(1)
    seen = torch.cat([inputs for inputs, _ in data.batches("train", generator)])
    whole = data._splits["train"][0]
    assert len(seen) == 24 and not torch.equal(seen, whole)
    assert torch.equal(seen.sort(dim=0).values, whole.sort(dim=0).values)
    assert torch.equal(torch.cat([inputs for inputs, _ in data.batches("train")]), whole)


def test_tensor_data_are_told_apart_by_their_digest():
    assert repr(points()) == repr(points())
    assert repr(points(seed=0)) != repr(points(seed=1))


def test_augmentation_draws_from_the_generator():
    def noisy(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)

    plain = points()
    data = TensorData(plain._splits["train"], plain._splits["validation"], 8, augment=noisy)
    one, two = (
        torch.cat([inputs for inputs, _ in data.batches("train", torch.Generator().manual_seed(4))]) for _ in range(2)
    )
    assert torch.equal(one, two)
    assert not any(torch.equal(inputs, noise) for inputs, noise in zip(one, plain._splits["train"][0], strict=True))
    assert torch.equal(next(data.batches("validation"))[0], plain._splits["validation"][0][:8])


def test_dataset_data_give_what_the_datasets_hold():
    tensors = points()._splits["train"]
    dataset = torch.utils.data.TensorDataset(*tensors)
    data = DatasetData(dataset, dataset, 8, name="points")
    assert data.steps("train") == 3 and repr(data) == "DatasetData('points', train=24, validation=24, batch=8)"
    assert torch.equal(torch.cat([inputs for inputs, _ in data.batches("validation")]), tensors[0])
    made = SupernetEvaluator(Tiny(), data, QUICK)
    made.prepare(Context(made.space))
    assert len(made.history) == 2


def test_batches_are_moved_as_what_they_are():
    class Batch(dict):
        __getattr__ = dict.__getitem__

    Pair = collections.namedtuple("Pair", "inputs name")
    device = torch.device("meta")
    batch = moved(Batch(pair=Pair(torch.zeros(2), "x"), several=[torch.zeros(1), (torch.zeros(1), 3)]), device)
    assert batch.pair.inputs.device == batch.several[0].device == batch.several[1][0].device == device
    assert (batch.pair.name, batch.several[1][1]) == ("x", 3)


def test_inputs_may_be_dictionaries():
    class Named(Tiny):
        def forward(self, batch):
            return super().forward(batch["points"])

    class Dictionaries:
        def steps(self, split):
            return points().steps(split)

        def batches(self, split, generator=None):
            for inputs, targets in points().batches(split, generator):
                yield {"points": inputs, "names": ["a", "b"]}, targets

        def __repr__(self):
            return "Dictionaries()"

    space = Named()
    named = SupernetEvaluator(space, Dictionaries(), QUICK)
    plain = SupernetEvaluator(Tiny(), points(), QUICK)
    for made in (named, plain):
        made.prepare(Context(made.space))
    (architecture,) = space.sample(1, np.random.default_rng(0))
    assert named.score(architecture) == plain.score(architecture)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: TensorData(torch.zeros(3), torch.zeros(3)), TypeError, "takes a pair of tensors"),
        (lambda: TensorData((torch.zeros(3), torch.zeros(2)), (torch.zeros(3),) * 2), ValueError, "3 inputs and 2"),
        (lambda: TensorData((torch.zeros(3),) * 2, (torch.zeros(3),) * 2), ValueError, "fewer than a batch of 64"),
        (lambda: TensorData((torch.zeros(3),) * 2, (torch.zeros(3),) * 2, batch=0), ValueError, "at least 1"),
        (lambda: next(points().batches("test")), ValueError, "the splits are"),
        (lambda: DatasetData([1, 2], [1], 1, name=""), ValueError, "needs the name"),
        (lambda: DatasetData([1, 2], [1], 4, name="x"), ValueError, "fewer than a batch"),
        (lambda: Recipe(epochs=0), ValueError, "epochs"),
        (lambda: Recipe(rate=0), ValueError, "rate"),
        (lambda: Recipe(clip=-1.0), ValueError, "clip"),
        (lambda: Recipe(momentum=1.0), ValueError, "momentum"),
        (lambda: Recipe(precision="float8"), ValueError, "precision"),
    ],
)
def test_data_and_recipes_are_checked(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(precision):
    losses = []
    for given in ("float32", precision):
        made = evaluator(recipe=Recipe(epochs=2, rate=0.1, precision=given))
        losses.append(made.history[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    space = Tiny()
    strategy = GumbelDARTS(points(), Recipe(epochs=2, precision=precision))
    strategy.setup(Context(space))
    strategy.train(strategy.context)
    assert np.isfinite(strategy.history[-1]["loss"])


def adam(parameters, rate):
    return torch.optim.Adam(parameters, lr=rate)


def test_recipe_names_what_it_was_given():
    assert repr(Recipe(optimizer=adam, rate=0.01)) == "Recipe(rate=0.01, optimizer=adam)"
    made = evaluator(recipe=Recipe(epochs=2, rate=0.01, optimizer=adam))
    assert len(made.history) == 2


def test_rate_falls_along_a_cosine():
    recipe = Recipe()
    assert recipe.rate_at(0.0) == 1.0 and recipe.rate_at(1.0) == pytest.approx(0.01)
    assert recipe.rate_at(0.5) == pytest.approx(0.505)


def test_training_that_diverges_is_an_error():
    bad = TensorData(
        (torch.full((8, FEATURES), torch.nan), torch.zeros(8, dtype=torch.long)),
        (torch.zeros(8, FEATURES), torch.zeros(8, dtype=torch.long)),
        batch=8,
    )
    space = Tiny()
    with pytest.raises(EvaluationError, match="diverged in epoch 1: its loss is nan; lower the rate"):
        SupernetEvaluator(space, bad, QUICK).prepare(Context(space))


def test_recalibration_gives_the_statistics_of_the_data():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.9))
    inputs = torch.randn(64, 2) * 3 + 5
    assert recalibrate(model, inputs.split(16)) == 1
    assert not model.training and not model[0].training
    torch.testing.assert_close(model[0].running_mean, inputs.mean(0), rtol=1e-4, atol=1e-4)
    assert model[0].momentum == 0.1
    assert recalibrate(nn.Linear(1, 1), []) == 0


def test_training_is_a_function_of_the_seed():
    space = Tiny()
    weights = []
    for seed in (0, 0, 1):
        training = Training(Context(space, seed=seed), space, points(), QUICK, name="one", identity="")
        weights.append(torch.cat([value.flatten().float() for value in training.supernet.state_dict().values()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_hooks_are_called():
    collect = Collect()
    evaluator(hooks=[collect])
    assert collect.started == [0] and len(collect.losses) == 6 and len(collect.epochs) == 2


def test_progress_shows_on_request(capsys):
    space = Tiny()
    made = SupernetEvaluator(space, points(), QUICK)
    Search(space, Random(), made, progress=True).run(trials=1)
    assert "supernet: 100%" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_trains_on_a_gpu(precision, tmp_path):
    recipe = Recipe(epochs=2, device="cuda", precision=precision)
    for kind in ("DARTS", "GumbelDARTS", "ProxylessNAS", "supernet"):
        with pytest.raises(SystemExit):
            search_of(kind, tmp_path / f"{kind}{precision}.db", hooks=[Fail(1)], recipe=recipe).run(trials=3)
        result = search_of(kind, tmp_path / f"{kind}{precision}.db", recipe=recipe).run(trials=3)
        assert len(result.completed) == 3
