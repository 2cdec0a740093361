"""MlonmcuProfiler against a fake MLonMCU: a script that takes its arguments and writes its report."""

import atexit
import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from nasmw import Chain, Filter, Search
from nasmw.errors import ProfilerError
from nasmw.profilers import MlonmcuProfiler
from nasmw.strategies import Random
from nasmw.testing import ProfilerContract, toy_space

pytest.importorskip("onnx")

FAKE = """#!{python}
import argparse, csv, json, pathlib, sys, time

parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command").add_parser("flow").add_subparsers(dest="flow")
run = commands.add_parser("run")
run.add_argument("model")
for name in ("backend", "target", "platform", "home", "dest"):
    run.add_argument("--" + name)
run.add_argument("--feature", action="append")
run.add_argument("--config", action="append", nargs="+")
args = parser.parse_args()
here = pathlib.Path(__file__).parent
behaviour = (here / "behaviour").read_text() if (here / "behaviour").exists() else ""
with (here / "calls").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print("INFO - compiling", args.model)
if behaviour == "exit":
    sys.exit("the toolchain is missing")
if behaviour == "hang":
    time.sleep(600)
size = len(pathlib.Path(args.model).read_bytes())
row = {{"Session": 0, "Run": 0, "Model": "network", "Target": args.target, "Cycles": 1000 + 7 * size,
       "Total ROM": 20000 + size, "Total RAM": 4096, "Config": "{{'a': 1, 'b': 2}}", "Comment": "-"}}
if behaviour == "failing":
    row.update({{"Failing": True, "Reason": "region `ROM' overflowed by 80 bytes"}})
if behaviour == "no cycles":
    del row["Cycles"]
if behaviour == "rubbish":
    row["Total RAM"] = "many"
if behaviour != "silent":
    with open(args.dest + "/report.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerows([row] * (2 if behaviour == "two" else 1))
"""


@pytest.fixture
def mlonmcu(tmp_path):
    return fake(tmp_path)


def fake(folder):
    path = folder / "mlonmcu"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return path


@functools.cache
def shared_fake():
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return fake(Path(folder))


def profiler(executable, space=None, **arguments):
    return MlonmcuProfiler(
        space or toy_space(), torch.zeros(1, 3, 8, 8), target="spike", executable=str(executable), **arguments
    )


def calls(executable):
    return [json.loads(line) for line in (executable.parent / "calls").read_text().splitlines()]


SMALL = {"width": 8, "depth": 1, "block0.op": "pool"}
LARGE = {"width": 16, "depth": 1, "block0.op": "pool"}


def test_three_metrics_from_one_pass(mlonmcu):
    made = profiler(mlonmcu)
    cycles, rom, ram = (made[name] for name in ("cycles", "rom_bytes", "ram_bytes"))
    assert cycles.profile(SMALL) == 1000 + 7 * (rom.profile(SMALL) - 20000)
    assert ram.profile(SMALL) == 4096
    assert len(calls(mlonmcu)) == 1
    assert rom.profile(LARGE) > rom.profile(SMALL)
    assert len(calls(mlonmcu)) == 2
    assert (rom.unit, rom.kind, rom.device, cycles.unit) == ("B", "measured", "spike by MLonMCU, tvmaotplus", "")


def test_the_command_line(mlonmcu):
    made = profiler(
        mlonmcu,
        backend="tflmi",
        platform="mlif",
        features=["vext", "debug"],
        config={"spike.vlen": 256},
        home="/some/home",
    )
    made["cycles"].profile(SMALL)
    ((flow, run, model, *rest),) = calls(mlonmcu)
    assert (flow, run) == ("flow", "run")
    assert model.endswith(".onnx")
    assert rest[:-1] == [
        *("--backend", "tflmi", "--target", "spike", "--platform", "mlif"),
        *("--feature", "vext", "--feature", "debug", "--config", "spike.vlen=256", "--home", "/some/home", "--dest"),
    ]


@pytest.mark.parametrize(
    ("behaviour", "match"),
    [
        ("exit", r"ended with exit code 1 on the network of .*printed:\n(.*\n)*the toolchain is missing"),
        ("failing", r"failed on the network of .*: region `ROM' overflowed by 80 bytes; it printed:\nINFO - compiling"),
        ("silent", r"wrote no report\.csv for the network of"),
        ("no cycles", r"has no column 'Cycles'; it has Session, Run"),
        ("rubbish", r"reported Total RAM = 'many' for .*; it must be a number"),
        ("two", r"reported 2 runs for .*, one was asked for"),
    ],
)
def test_what_goes_wrong_is_an_error_and_no_number(mlonmcu, behaviour, match):
    (mlonmcu.parent / "behaviour").write_text(behaviour)
    with pytest.raises(ProfilerError, match=match):
        profiler(mlonmcu)["ram_bytes"].profile(SMALL)


def test_a_hang_ends(mlonmcu):
    (mlonmcu.parent / "behaviour").write_text("hang")
    with pytest.raises(ProfilerError, match=r"took over 2 s for the network of"):
        profiler(mlonmcu, timeout=2.0)["cycles"].profile(SMALL)


def test_wrong_arguments(mlonmcu):
    with pytest.raises(ProfilerError, match=r"'nowhere' is not found; install MLonMCU \(pip install mlonmcu"):
        profiler("nowhere")
    with pytest.raises(TypeError, match="takes one tensor as its example"):
        MlonmcuProfiler(toy_space(), (torch.zeros(1), torch.zeros(1)), target="spike", executable=str(mlonmcu))
    with pytest.raises(ProfilerError, match="has no metric 'energy'; it has cycles, rom_bytes, ram_bytes"):
        profiler(mlonmcu)["energy"]


def test_in_a_search(mlonmcu):
    made = profiler(mlonmcu)
    limit = made["rom_bytes"].profile(LARGE)
    found = Search(
        toy_space(),
        Chain(Random(), Filter(made["rom_bytes"] <= limit, made["cycles"] <= 1e9)),
        lambda trial: 1.0,
        seed=0,
    ).run(trials=2)
    assert all(trial.columns["rom_bytes"] <= limit for trial in found.trials)


class TestRom(ProfilerContract):
    samples = 3

    def make(self, space):
        return profiler(shared_fake(), space)["rom_bytes"]
