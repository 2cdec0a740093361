"""A device whose networks are lines of Python that its process runs, and one whose times are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nasmw.devices import Artifact, Device, Sample, Session

FAR = """
import os
import sys
import time


def describe(options):
    return {"runtime": "scripted", "version": "1", "precision": "fp32", "affinity": sorted(os.sched_getaffinity(0))}


def load(files, options):
    return Network(files, options)


class Network:
    def __init__(self, files, options):
        if "load" in files:
            exec(files["load"].decode(), {"options": options})
        self.run = compile(files["run"], "run", "exec")

    def __call__(self):
        exec(self.run, {"os": os, "sys": sys, "time": time})

    def infer(self, inputs):
        return [2 * value for value in inputs]
"""


def script(run: str, **files: str) -> Artifact:
    """Return a network that runs a line of Python."""
    return Artifact({"run": run.encode(), **{name: text.encode() for name, text in files.items()}}, ((1,),))


class ScriptedDevice(Device):
    """Runs what `script` makes."""

    runtime = "scripted"
    extra = "test"
    far = ""

    @property
    def variant(self) -> str:
        return "fp32"

    def far_source(self) -> str:
        return FAR

    def export(self, model: Any, example: Any) -> Artifact:
        return script("sum(range(1000))")


Clock = Callable[[str, str, int], tuple[float, float]]


class ClockDevice(Device):
    """Takes what a function says: of the device's name, the network's and the number of the visit, to wall and cpu."""

    runtime = "clock"
    extra = "test"
    far = ""

    def __init__(self, clock: Clock, calls: list[tuple[str, str]], **common: Any) -> None:
        super().__init__(**common)
        self.clock = clock
        self.calls = calls

    @property
    def variant(self) -> str:
        return "fp32"

    def export(self, model: Any, example: Any) -> Artifact:
        return script("pass")

    def open(self) -> Session:
        return ClockSession(self)


class ClockSession(Session):
    device: ClockDevice

    def describe(self) -> dict[str, Any]:
        return {"runtime": "clock", "version": "1", "precision": "fp32", "threads": 1, "cpu": "none", "load": None}

    def prepare(self, key: str, artifact: Artifact) -> float:
        self._artifacts[key] = artifact
        return 0.0

    def measure(self, key: str, runs: int = 10, warmup: int = 3) -> Sample:
        assert key in self._artifacts
        self.device.calls.append((self.device.name, key))
        wall, cpu = self.device.clock(self.device.name, key, len(self.device.calls))
        return Sample(np.full(runs, wall), np.full(runs, cpu))

    def forget(self, key: str) -> None:
        self._artifacts.pop(key, None)
