"""Device: what a network can be exported for, prepared and measured on."""

from __future__ import annotations

import hashlib
import importlib.util
import operator
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from nasmw.errors import MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasmw.devices.session import Session

__all__ = ["Artifact", "Device"]

FAR = Path(__file__).parent / "far"
LONGEST = 1e6  # seconds of a time-out; clocks of some systems end soon after
# Reads one line, in which everything else comes: nothing of nasmw has to be installed where this runs. What lies in the
# folder where it happens to run, a json.py for instance, is not imported.
BOOTSTRAP = (
    "import sys;sys.path[:]=[p for p in sys.path if p];import json;hello=json.loads(sys.stdin.buffer.readline());"
    "space={'__name__':'nasmw_far_runner'};exec(compile(hello['runner'],'<far side: runner.py>','exec'),space);"
    "space['serve'](hello)"
)


def _tuples(shapes: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(operator.index, shape)) for shape in shapes)


@attrs.frozen(repr=False)
class Artifact:
    """A network in the form that a device takes, and the shapes of its inputs.

    Attributes:
        files: The contents of each file, by name.
        shapes: The shape of each input, the batch first.
    """

    files: Mapping[str, bytes]
    shapes: tuple[tuple[int, ...], ...] = attrs.field(converter=_tuples)

    @property
    def digest(self) -> str:
        """A hash of the files and shapes, 16 hexadecimal digits."""
        found = hashlib.sha256(repr(self.shapes).encode())
        for name, content in sorted(self.files.items()):
            found.update(f"\n{name} {len(content)}\n".encode())
            found.update(content)
        return found.hexdigest()[:16]

    def __repr__(self) -> str:
        files = ", ".join(f"{name} {len(content):,} B" for name, content in self.files.items())
        return f"<Artifact {files}; inputs {', '.join(map(str, self.shapes))}>"


class Device(ABC):
    """A runtime at some precision, on this machine or another: what a latency is about.

    A device has two sides. This one exports networks, with whatever that takes, and drives. The far one is a process
    that holds the runtime and measures; its source is sent to it, so it needs Python (3.8 or newer), NumPy and the
    runtime, and nothing of nasmw. `open` starts it.

    A subclass names its `runtime`, the `extra` that brings it, its packages and its `far` module, and implements
    `variant`, `options` and `export`. The far module has ``describe(options) -> dict`` with ``"runtime"``,
    ``"version"`` and ``"precision"`` (the one really used), and ``load(files, options)``, which returns an object that
    runs the network on a fixed random input when it is called, and on given arrays by its ``infer(inputs)``. The
    options are those of the device, ``"threads"`` and, for `load`, ``"shapes"``.

    Args:
        threads: The threads that the runtime uses, one core for each.
        python: The Python interpreter of the far side, a path or a command; None takes the one that runs this
            (``python3`` on another host).
        host: Another machine, as ``ssh`` names it; keys have to be set up, since nothing can be asked for.
        core: The core that the far side is pinned to (the first of them with several threads); None takes the last
            ones, where the system can pin at all.
        timeout: The most seconds that a request may take, such as loading or measuring one network; at most a million.
        name: The name of the device; None makes one of the runtime and its settings.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.
    """

    runtime: ClassVar[str]
    """The name of the runtime."""
    extra: ClassVar[str]
    """The extra that brings the runtime."""
    far: ClassVar[str]
    """The name of the module in ``nasmw/devices/far`` that loads and runs networks."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The modules that `export` imports."""
    far_packages: ClassVar[tuple[str, ...]] = ()
    """The modules that the far side imports."""
    on_cpu: bool = True
    """Whether processor time passes while a network runs; it does not where a GPU computes."""

    def __init__(
        self,
        *,
        threads: int = 1,
        python: str | None = None,
        host: str | None = None,
        core: int | None = None,
        timeout: float = 60.0,
        name: str | None = None,
    ) -> None:
        for argument, number, least in (("threads", threads, 1), ("core", core, 0)):
            if number is None and argument == "core":
                continue
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"{type(self).__name__}({argument}=...) takes a whole number, got {number!r}")
            if number < least:
                raise ValueError(f"{type(self).__name__}({argument}=...) takes at least {least}, got {number}")
        for argument, text in (("python", python), ("host", host), ("name", name)):
            if text is not None and (not isinstance(text, str) or not text):
                raise TypeError(f"{type(self).__name__}({argument}=...) takes a non-empty string, got {text!r}")
        if host is not None and (host.startswith("-") or not host.isprintable() or " " in host):
            raise ValueError(f"{type(self).__name__}(host=...) takes a destination of ssh, got {host!r}")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= LONGEST:
            raise ValueError(
                f"{type(self).__name__}(timeout=...) takes a positive number of seconds, at most {LONGEST:g}, got "
                f"{timeout!r}"
            )
        self.threads = threads
        self.python = python
        self.host = host
        self.core = core
        self.timeout = float(timeout)
        self._name = name
        self._key: str | None = None

    # -- what a subclass implements -----------------------------------------------------------------------------

    @property
    @abstractmethod
    def variant(self) -> str:
        """What sets this device apart from others of its runtime, such as ``"fp32"``."""

    @property
    def place(self) -> str:
        """The part of a machine that this device runs on: devices of one place are slow at the same times."""
        machine = self.host or "here"
        return machine if self.on_cpu else f"{machine}, off the CPU"

    @property
    def options(self) -> dict[str, Any]:
        """What the far module is told: numbers and strings by name."""
        return {}

    @abstractmethod
    def export(self, model: nn.Module, example: Tensor) -> Artifact:
        """Return a network in the form that this device takes.

        Args:
            model: The network; it is exported in evaluation mode, and left as it was.
            example: A tensor of the shape that it is to be measured on, batch included.

        Raises:
            DeviceError: If the network cannot be exported.
            MissingExtraError: If a package is not installed.
        """

    def far_source(self) -> str:
        """Return the source of the far module; for a module that stands elsewhere, override this."""
        return (FAR / f"{self.far}.py").read_text(encoding="utf-8")

    # -- what others call ---------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the device, as in ``"onnxruntime-fp32"``."""
        if self._name is not None:
            return self._name
        threads = f"-{self.threads}threads" if self.threads > 1 else ""
        host = f"@{self.host.rpartition('@')[2]}" if self.host else ""
        return f"{self.runtime}-{self.variant}{threads}{host}"

    @property
    def key(self) -> str:
        """What measurements are filed under: name, version, real precision, threads, processor.

        Raises:
            DeviceError: If the far side, which knows them, does not start.
        """
        if self._key is None:
            with self.open() as session:
                about = session.describe()
            self._key = key_of(self.name, about)
        return self._key

    @classmethod
    def missing(cls, python: str | None = None, host: str | None = None) -> str | None:
        """Return why this kind of device cannot be used here, or None.

        What another interpreter or host lacks is found when it is opened.
        """
        elsewhere = python is not None or host is not None
        for package in cls.packages + (() if elsewhere else cls.far_packages):
            if importlib.util.find_spec(package) is None:
                return str(MissingExtraError(package, cls.extra))
        return None

    def require(self) -> None:
        """Check that the packages of this side are installed.

        Raises:
            MissingExtraError: If one is not; names the extra.
        """
        elsewhere = self.python is not None or self.host is not None
        for package in self.packages + (() if elsewhere else self.far_packages):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, self.extra)

    def open(self) -> Session:
        """Return a session, whose process starts with the first request; use it in a ``with`` statement.

        Raises:
            MissingExtraError: If a package of this side is not installed.
        """
        from nasmw.devices.session import Session

        self.require()
        return Session(self)

    def command(self) -> list[str]:
        """Return the command that starts the far side."""
        far = [self.python or ("python3" if self.host else sys.executable), "-c", BOOTSTRAP]
        if self.host is None:
            return far
        return ["ssh", "-T", "-o", "BatchMode=yes", "--", self.host, shlex.join(far)]

    def hello(self) -> dict[str, Any]:
        """Return the first line that the far side is sent."""
        return {
            "runner": (FAR / "runner.py").read_text(encoding="utf-8"),
            "backend": self.far_source(),
            "options": self.options,
            "threads": self.threads,
            "core": self.core,
        }

    def __repr__(self) -> str:
        given = {"python": self.python, "host": self.host, "core": self.core}
        where = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"<{type(self).__name__} {self.name!r}{where}>"


def key_of(name: str, about: Mapping[str, Any]) -> str:
    """Return what the measurements of a device are filed under.

    Args:
        name: The name of the device.
        about: What its far side says of itself; an ``"accelerator"`` takes the processor's place.
    """
    threads = f"{about['threads']} thread{'s' if about['threads'] > 1 else ''}"
    place = about.get("accelerator", about["cpu"])
    return f"{name}: {about['runtime']} {about['version']}, {about['precision']}, {threads}, {place}"
