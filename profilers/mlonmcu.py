"""MlonmcuProfiler: cycles, ROM and RAM of networks on microcontrollers, from MLonMCU."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from nasmw.candidates import Architecture
from nasmw.devices.onnx_export import export_onnx
from nasmw.devices.session import end_group
from nasmw.devices.weights import sensible_weights
from nasmw.errors import ProfilerError
from nasmw.profiler import MultiProfiler
from nasmw.profilers.inputs import ExampleInput, ExampleLike, check_resolution
from nasmw.space import Space

__all__ = ["MlonmcuProfiler"]

COLUMNS = {"cycles": "Cycles", "rom_bytes": "Total ROM", "ram_bytes": "Total RAM"}
"""The metrics, and what MLonMCU's reports call them."""
UNITS = {"cycles": "", "rom_bytes": "B", "ram_bytes": "B"}
TAIL = 30  # lines of what MLonMCU printed that an error shows
WIDTH = 500  # characters of a line there


class MlonmcuProfiler(MultiProfiler):
    """Cycles, bytes of ROM and bytes of RAM of networks on a microcontroller or its simulator, all from one pass.

    A network is written as ONNX; MLonMCU compiles it with a backend, runs it on a target and reports. It is called by
    its command line, so it may live in a Python environment of its own, with what ``mlonmcu init`` and ``mlonmcu
    setup`` made there.

    **Tested against a fake only:** a script that takes MLonMCU 0.9's arguments and writes a report in its format. No
    toolchain or simulator of a microcontroller was at hand; expect to adjust `backend`, `features` and `config`.

    ``profiler["cycles"]``, ``profiler["rom_bytes"]`` and ``profiler["ram_bytes"]`` are profilers of one metric each;
    an architecture is compiled once for all of them.

    Source: van Kempen et al., MLonMCU: TinyML Benchmarking with Fast Retargeting, CODAI 2022.

    Args:
        space: The space whose architectures are profiled, made with a `build`.
        example_input: A tensor of the shape that the networks take.
        target: MLonMCU's name of the target, such as ``"spike"`` or ``"corstone300"``.
        backend: MLonMCU's name of the backend that compiles.
        platform: MLonMCU's name of the platform; None leaves the choice to it.
        features: MLonMCU's features to enable, each by name.
        config: MLonMCU's settings by key.
        home: The folder of the MLonMCU environment; None leaves it to MLonMCU (``$MLONMCU_HOME``).
        executable: The command, a name or a path.
        timeout: The most seconds that one architecture may take.
        resolution: The choice whose option is the height and width of the input, where the space has it.

    Raises:
        ProfilerError: If the command is not found or the space cannot build networks; while profiling, if MLonMCU
            fails, takes too long, or reports no such metric, with the end of what it printed.
        TypeError: If the example is not one tensor, or `features` is a string.
        ValueError: If the time-out is no positive number, or target or backend is no name.

    Example:
        >>> from nasmw.testing import toy_space
        >>> example = torch.zeros(1, 3, 8, 8)
        >>> MlonmcuProfiler(toy_space(), example, target="spike", executable="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        nasmw.errors.ProfilerError: the command 'nowhere' is not found; ...
    """

    def __init__(
        self,
        space: Space,
        example_input: ExampleLike,
        *,
        target: str,
        backend: str = "tvmaotplus",
        platform: str | None = None,
        features: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
        home: str | None = None,
        executable: str = "mlonmcu",
        timeout: float = 600.0,
        resolution: str | None = "resolution",
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise ValueError(f"MlonmcuProfiler(timeout=...) takes a positive number of seconds, got {timeout!r}")
        for argument, text in (("target", target), ("backend", backend)):
            if not isinstance(text, str) or not text or text.startswith("-"):
                raise ValueError(f"MlonmcuProfiler({argument}=...) takes MLonMCU's name of one, got {text!r}")
        if isinstance(features, str):
            raise TypeError(f"MlonmcuProfiler(features=...) takes a list of names, got the string {features!r}")
        found = shutil.which(executable)
        if found is None:
            raise ProfilerError(
                f"the command {executable!r} is not found; install MLonMCU (pip install mlonmcu, best into an "
                "environment of its own), make an environment for its tools (mlonmcu init, mlonmcu setup), and pass "
                "the path of its command as executable=..."
            )
        super().__init__(space, UNITS, kind="measured", device=f"{target} by MLonMCU, {backend}")
        if not space.buildable:
            raise ProfilerError(f"MlonmcuProfiler builds the networks of {space!r}, which was made without `build`")
        self.space = space
        self.example_input = ExampleInput.of(example_input)
        if self.example_input.kwargs or len(self.example_input.args) != 1:
            raise TypeError(f"MlonmcuProfiler takes one tensor as its example, got {self.example_input!r}")
        self.resolution = check_resolution(space, resolution)
        self.target = target
        self.backend = backend
        self.platform = platform
        self.features = tuple(features)
        self.config = dict(config or {})
        self.home = home
        self.executable = found
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<MlonmcuProfiler of {self.target} by {self.backend}: {', '.join(COLUMNS)}>"

    def command(self, model: Path, folder: Path) -> list[str]:
        """Return the command that profiles an ONNX file and leaves its report in a folder."""
        command = [self.executable, "flow", "run", str(model), "--backend", self.backend, "--target", self.target]
        if self.platform is not None:
            command += ["--platform", self.platform]
        for feature in self.features:
            command += ["--feature", feature]
        for key, value in self.config.items():
            command += ["--config", f"{key}={value}"]
        if self.home is not None:
            command += ["--home", self.home]
        return [*command, "--dest", str(folder)]

    def _profile_all(self, architecture: Architecture) -> Mapping[str, float]:
        complete = self.space.decode(self.space.encode(architecture))
        example = self.example_input.for_architecture(complete, self.resolution).args[0]
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(0)
            model = sensible_weights(self.space.build(complete), example)
        return self._report(model, example, f"the network of {complete!r}")

    def _report(self, model: nn.Module, example: torch.Tensor, what: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "network.onnx"
            file.write_bytes(export_onnx(model, example))
            folder = Path(temporary) / "session"
            folder.mkdir()
            printed = self._run(self.command(file, folder), what)
            report = folder / "report.csv"
            if not report.is_file():
                raise ProfilerError(f"MLonMCU wrote no report.csv for {what}{printed}")
            try:
                with report.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
                    rows = list(csv.DictReader(stream))
            except csv.Error as error:
                raise ProfilerError(f"MLonMCU's report.csv for {what} is no table: {error}{printed}") from error
        if len(rows) != 1:
            raise ProfilerError(f"MLonMCU reported {len(rows)} runs for {what}, one was asked for{printed}")
        (row,) = rows
        if row.get("Failing") == "True":
            raise ProfilerError(f"MLonMCU failed on {what}: {row.get('Reason') or 'it gives no reason'}{printed}")
        return {name: _number(row, column, what) for name, column in COLUMNS.items()}

    def _run(self, command: list[str], what: str) -> str:
        """Run MLonMCU and return what it printed, as the end of an error's text."""
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=sys.platform != "win32",
            )
        except OSError as error:
            raise ProfilerError(f"MLonMCU does not start: {error}") from error
        with process:
            try:
                stdout, _ = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired as error:
                raise ProfilerError(f"MLonMCU took over {self.timeout:g} s for {what}{_tail(error.stdout)}") from None
            finally:
                end_group(process)
        printed = _tail(stdout)
        if process.returncode != 0:
            raise ProfilerError(f"MLonMCU ended with exit code {process.returncode} on {what}{printed}")
        return printed


def _number(row: Mapping[str, str | None], column: str, what: str) -> float:
    """Return a metric of a report."""
    text = row.get(column)
    if column not in row:
        raise ProfilerError(f"MLonMCU's report of {what} has no column {column!r}; it has {', '.join(row)}")
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ProfilerError(f"MLonMCU reported {column} = {text!r} for {what}; it must be a number of at least 0")
    return value


def _tail(printed: bytes | None) -> str:
    lines = (printed or b"").decode(errors="replace").rstrip().splitlines()
    return "; it printed:\n" + "\n".join(line[:WIDTH] for line in lines[-TAIL:]) if lines else "; it printed nothing"
