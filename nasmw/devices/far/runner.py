"""The runner: prepares and measures networks in a process of its own, asked by JSON lines on its standard input.

Each request is one line, ``{"id": 1, "do": "measure", "seconds": 60.0, ...}``, and each answer too: ``{"id": 1,
"ok": true, ...}``, or ``{"id": 1, "ok": false, "error": "Traceback ..."}``. Whatever else the process prints goes to
its standard error. A request that takes longer than its ``seconds`` ends the process with a traceback of where it was;
a closed input ends it too, so that nothing is left behind where the other side has died.

Source that is sent, not imported: the standard library, and NumPy where arrays travel.
"""

from __future__ import annotations

import base64
import faulthandler
import gc
import io
import json
import linecache
import os
import platform
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

VECTORS = ("amx", "asimd", "avx", "bf16", "fma", "i8mm", "neon", "rvv", "sse4", "sve", "vnni")  # beginnings of flags


def serve(hello: dict[str, Any]) -> None:
    """Answer requests until the input is closed.

    Args:
        hello: ``backend`` (the source of the backend module), ``options`` (handed to it), ``threads``, and ``core``
            (the first core to run on; None takes the last ones there are).
    """
    answers = _private_output()
    faulthandler.enable()
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(hello["threads"])
    cores = pin(hello["core"], hello["threads"])
    runner = Runner(hello, cores)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: dict[str, Any] = {"id": request["id"], "ok": True}
        faulthandler.dump_traceback_later(request["seconds"], exit=True)
        try:
            answer.update(runner.answer(request))
        except Exception:
            answer = {"id": request["id"], "ok": False, "error": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _private_output() -> io.BufferedWriter:
    """Return the standard output, and let what others write there go to the standard error."""
    sys.stdout.flush()
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def pin(core: int | None, threads: int) -> list[int] | None:
    """Keep this process on as many cores as it has threads; return them, or None where the system cannot.

    Args:
        core: The first of the cores; None takes the last ones, since the first one serves most interrupts.
        threads: How many cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        if core is not None:
            raise RuntimeError("this system cannot pin a process to a core; leave `core` out")
        return None
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise RuntimeError(f"cannot run {threads} threads on a core each: this process may use the cores {allowed}")
    cores = allowed[-threads:] if core is None else list(range(core, core + threads))
    if not set(cores) <= set(allowed):
        raise RuntimeError(f"cannot run on the cores {cores}: this process may use {allowed}")
    os.sched_setaffinity(0, cores)
    return cores


class Runner:
    """What the requests do; one method for each."""

    def __init__(self, hello: dict[str, Any], cores: list[int] | None) -> None:
        self.options = dict(hello["options"], threads=hello["threads"])
        self.cores = cores
        self.source = hello["backend"]
        self.backend: Any = None
        self.prepared: dict[str, Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what a request asks for."""
        if self.backend is None:
            self.backend = module("backend", self.source)
        method: Callable[[dict[str, Any]], dict[str, Any]] = getattr(self, "do_" + request["do"])
        return method(request)

    def do_describe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Describe the machine and the runtime."""
        about = dict(machine(), cores=self.cores, threads=self.options["threads"])
        about.update(self.backend.describe(self.options))
        return {"about": about}

    def do_prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load a network and make its fixed input."""
        files = {name: base64.b64decode(text) for name, text in request["files"].items()}
        begin = time.perf_counter()
        loaded = self.backend.load(files, dict(self.options, shapes=request["shapes"]))
        self.prepared[request["key"]] = loaded
        return {"seconds": time.perf_counter() - begin}

    def do_measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a network some times, each one timed."""
        return timed(self._loaded(request), request["runs"], request["warmup"])

    def do_infer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a network on given inputs and return what it computes."""
        outputs = self._loaded(request).infer([unpack(text) for text in request["inputs"]])
        return {"outputs": [pack(output) for output in outputs]}

    def do_forget(self, request: dict[str, Any]) -> dict[str, Any]:
        """Drop a network."""
        self.prepared.pop(request["key"], None)
        return {}

    def _loaded(self, request: dict[str, Any]) -> Any:
        if request["key"] not in self.prepared:
            raise KeyError(f"no network {request['key']!r} has been prepared in this runner")
        return self.prepared[request["key"]]


def timed(call: Callable[[], Any], runs: int, warmup: int) -> dict[str, Any]:
    """Return the milliseconds of each run, by the clock and of processor time."""
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(warmup):
        call()
    gc.collect()
    gc.disable()
    try:
        for _ in range(runs):
            cpu_begin = time.process_time_ns()
            begin = time.perf_counter_ns()
            call()
            end = time.perf_counter_ns()
            cpu_end = time.process_time_ns()
            wall.append((end - begin) / 1e6)
            cpu.append((cpu_end - cpu_begin) / 1e6)
    finally:
        gc.enable()
    return {"wall_ms": wall, "cpu_ms": cpu}


def machine() -> dict[str, Any]:
    """Describe the machine: processor, system, load and Python."""
    about: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "cpu_flags": [],
    }
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file.read().split("\n\n")[0].splitlines()]
    except OSError:
        return about
    fields = {name.strip(): value.strip() for name, _, value in lines}
    numbers = ", ".join(f"{key.split()[-1]} {fields[key]}" for key in ("cpu family", "model") if key in fields)
    if "model name" in fields:
        about["cpu"] = fields["model name"] + (f" ({numbers})" if numbers else "")
    flags = fields.get("flags", fields.get("Features", "")).split()
    about["cpu_flags"] = sorted(flag for flag in flags if flag.startswith(VECTORS))
    return about


def pack(array: Any) -> str:
    """Return an array as text."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def unpack(text: str) -> Any:
    """Return the array that a text stands for."""
    import numpy as np

    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)


def module(name: str, source: str) -> types.ModuleType:
    """Return a module made from its source, with tracebacks that show its lines."""
    path = f"<far side: {name}.py>"
    linecache.cache[path] = (len(source), None, source.splitlines(True), path)
    made = types.ModuleType(name)
    sys.modules[f"nasmw_far_{name}"] = made
    exec(compile(source, path, "exec"), made.__dict__)
    return made
