"""Session: the process of a device, driven from this side."""

from __future__ import annotations

import base64
import collections
import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.errors import DeviceError

if TYPE_CHECKING:
    from nasmw.devices.base import Artifact, Device

__all__ = ["Sample", "Session", "end_group"]

GRACE = 5.0  # seconds that the far side has beyond its time-out, to say where it hung
LINE = 1 << 30  # bytes of an answer
TAIL = 40  # lines of the far side's standard error that an error shows
WIDTH = 2000  # bytes of a line there; longer ones are broken
SHOWN = 300  # characters of an answer that is none


@attrs.frozen
class Sample:
    """The times of some runs of one network, one after another.

    Attributes:
        wall_ms: By the clock, ``(runs,)`` milliseconds.
        cpu_ms: Processor time of all threads, ``(runs,)`` milliseconds.
    """

    wall_ms: Floats = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    cpu_ms: Floats = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))


class Session:
    """A device's process, which starts with the first request.

    A crash, a hang or an answer that makes no sense is a `DeviceError` with what the process printed, never a number.
    The process is ended then, and the next request starts another one, to which prepared networks are sent again as
    they are asked for. Threads take turns; a forked program gets a process of its own.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: collections.deque[str] = collections.deque(maxlen=TAIL)
        self._reader: threading.Thread | None = None
        self._requests = 0
        self._artifacts: dict[str, Artifact] = {}
        self._sent: set[str] = set()
        self._owner = os.getpid()
        self._turns = threading.RLock()
        self._left: list[object] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __contains__(self, key: object) -> bool:
        return key in self._artifacts

    def __repr__(self) -> str:
        state = "idle" if self._process is None else f"process {self._process.pid}"
        return f"<Session of {self.device!r}, {state}, {len(self._artifacts)} networks>"

    # -- requests -----------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what the far side says of machine, runtime, version and precision.

        Raises:
            DeviceError: As for every request.
        """
        about = self._request("describe").get("about")
        wanted = ("runtime", "version", "precision", "threads", "cpu")
        if (
            not isinstance(about, dict)
            or not all(about.get(name) for name in wanted)
            or type(about["threads"]) is not int
        ):
            raise self._failed(f"described itself as {_shown(repr(about))}, without all of {wanted}")
        return about

    def prepare(self, key: str, artifact: Artifact) -> float:
        """Have the far side load a network; returns the seconds that it took.

        Args:
            key: What to call it from now on; one that is in use is replaced.
            artifact: What `Device.export` made.

        Raises:
            DeviceError: If it cannot load it.
        """
        with self._turn():
            self._artifacts.pop(key, None)
            seconds = self._send(key, artifact)
            self._artifacts[key] = artifact
            return seconds

    def measure(self, key: str, runs: int = 10, warmup: int = 3) -> Sample:
        """Run a prepared network on its fixed input, and return the time of each run.

        Args:
            key: What `prepare` called it.
            runs: How many runs are timed, at least 1.
            warmup: How many come before them.

        Raises:
            KeyError: If no such network was prepared.
            DeviceError: If there are not as many times as runs, each of them positive.
        """
        if not (isinstance(runs, int) and isinstance(warmup, int) and runs >= 1 and warmup >= 0):
            raise ValueError(
                f"measure takes runs of at least 1 and warmup of at least 0, whole numbers, got {runs!r} and {warmup!r}"
            )
        with self._turn():
            self._ensure(key)
            answer = self._request("measure", key=key, runs=runs, warmup=warmup)
            wall, cpu = answer.get("wall_ms"), answer.get("cpu_ms")
            if not _are_times(wall, runs, least=math.ulp(0.0)) or not _are_times(cpu, runs, least=0.0):
                raise self._failed(f"gave no {runs} times in milliseconds: {_shown(json.dumps(answer))}")
        return Sample(np.array(wall, dtype=np.float64), np.array(cpu, dtype=np.float64))

    def infer(self, key: str, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Run a prepared network on arrays and return its outputs.

        Raises:
            KeyError: If no such network was prepared.
            DeviceError: If it fails.
        """
        with self._turn():
            self._ensure(key)
            answer = self._request("infer", key=key, inputs=[_packed(array) for array in inputs])
            try:
                return [np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) for text in answer["outputs"]]
            except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise self._failed(f"gave no arrays: {error}") from error

    def forget(self, key: str) -> None:
        """Drop a network on both sides."""
        with self._turn():
            self._artifacts.pop(key, None)
            if key in self._sent and self._process is not None:
                self._request("forget", key=key)
            self._sent.discard(key)

    def close(self) -> None:
        """End the process; the session can be used again, and keeps its networks."""
        with self._turn():
            process = self._process
            if process is None:
                return
            with contextlib.suppress(OSError):
                _pipe(process.stdin).close()  # its loop ends with its input
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            self._end()

    # -- inside -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the process alone; leave it to the program that started it, where this one was forked off that."""
        if self._owner != os.getpid():
            # Kept, since to close these pipes could wait for ever: a thread that is gone may hold their locks.
            self._left += [self._process, self._reader]
            self._process, self._reader, self._owner = None, None, os.getpid()
            self._turns = threading.RLock()
            self._sent.clear()
        with self._turns:
            yield

    def _send(self, key: str, artifact: Artifact) -> float:
        self._sent.discard(key)
        files = {name: base64.b64encode(content).decode() for name, content in artifact.files.items()}
        answer = self._request("prepare", key=key, files=files, shapes=artifact.shapes)
        seconds = answer.get("seconds")
        if not _are_times([seconds], 1, least=0.0):
            raise self._failed(f"gave no time in seconds: {_shown(json.dumps(answer))}")
        self._sent.add(key)
        return float(seconds)  # type: ignore[arg-type]

    def _ensure(self, key: str) -> None:
        if key not in self._artifacts:
            raise KeyError(f"no network {key!r} was prepared on {self.device!r}")
        if key not in self._sent or self._process is None:
            self._send(key, self._artifacts[key])

    def _request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return its answer."""
        with self._turn():
            return self._asked(do, arguments)

    def _asked(self, do: str, arguments: dict[str, Any]) -> dict[str, Any]:
        process = self._process or self._start()
        self._requests += 1
        request = {"id": self._requests, "do": do, "seconds": self.device.timeout, **arguments}
        begin = time.monotonic()
        watch = threading.Timer(self.device.timeout + GRACE, end_group, (process,))
        watch.daemon = True
        watch.start()
        try:
            line = self._exchange(process, json.dumps(request).encode() + b"\n")
        except BaseException:  # Ctrl-C as well: the answer that is still to come belongs to no later request
            self._end()
            raise
        finally:
            watch.cancel()
        if not line.endswith(b"\n") and len(line) < LINE:
            raise self._died(do, time.monotonic() - begin, line)
        answer = _parsed(line)
        if answer is None or answer.get("id") != request["id"] or not isinstance(answer.get("ok"), bool):
            raise self._failed(f"answered rubbish to {do!r}: {_shown(line.decode(errors='replace'))}")
        if not answer["ok"]:
            raise DeviceError(f"{self.device!r} failed to {do}:\n{str(answer.get('error')).rstrip()}")
        return answer

    def _exchange(self, process: subprocess.Popen[bytes], line: bytes) -> bytes:
        with contextlib.suppress(BrokenPipeError):  # it has died, which its end of the other pipe says as well
            _pipe(process.stdin).write(line)
            _pipe(process.stdin).flush()
        return _pipe(process.stdout).readline(LINE)

    def _start(self) -> subprocess.Popen[bytes]:
        command = self.device.command()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=sys.platform != "win32",  # Ctrl-C is for this side, which then ends it
            )
        except (OSError, ValueError) as error:  # the latter for a zero byte
            raise DeviceError(f"{self.device!r} does not start: {command[0]}: {error}") from error
        self._process = process
        self._sent.clear()
        self._stderr = collections.deque(maxlen=TAIL)
        self._reader = threading.Thread(target=self._stderr.extend, args=(_lines(process.stderr),), daemon=True)
        self._reader.start()
        hello = json.dumps(self.device.hello()).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            _pipe(process.stdin).write(hello)
        return process

    def _end(self) -> None:
        """End the process now, if there is one."""
        process, self._process = self._process, None
        self._sent.clear()
        if process is None:
            return
        end_group(process)
        process.wait()
        if self._reader is not None:
            self._reader.join(GRACE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()

    def _died(self, do: str, seconds: float, begun: bytes) -> DeviceError:
        process = self._process
        assert process is not None
        late = seconds >= self.device.timeout
        if not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        code = process.poll()
        cut = f", in the middle of its answer {_shown(begun[:WIDTH].decode(errors='replace'))}" if begun else ""
        if late:
            return self._failed(f"did not {do} within {self.device.timeout:g} s and was ended{cut}")
        return self._failed(f"{_obituary(code)} while it was to {do}{cut}")

    def _failed(self, what: str) -> DeviceError:
        """End the process and return an error that shows what it printed."""
        self._end()
        printed = "\n".join(self._stderr).strip()
        tail = f" Its standard error ends with:\n{printed}" if printed else " Nothing stands on its standard error."
        return DeviceError(f"{self.device!r} {what}.{tail}")


def _lines(stream: IO[bytes] | None) -> Any:
    while line := _pipe(stream).readline(WIDTH):
        yield line.decode(errors="replace").rstrip()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, unless it has been waited for: its number may be another one's by then."""
    if process.returncode is not None:
        return
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _obituary(code: int | None) -> str:
    """Return what is known of how a process ended."""
    if code is None:
        return "closed its output"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"was ended by signal {-code} ({name}{', out of memory?' if name == 'SIGKILL' else ''})"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _are_times(values: object, runs: int, least: float) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == runs
        and all(type(value) in (int, float) and least <= value <= sys.float_info.max for value in values)
    )


def _packed(array: npt.NDArray[Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
