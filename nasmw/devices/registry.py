"""The devices that are known: ours, and those that other packages register."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs

from nasmw.devices.base import Device
from nasmw.errors import DeviceError, did_you_mean

__all__ = ["GROUP", "Known", "get", "known"]

GROUP = "nasmw.devices"
OURS = {
    "ncnn": "nasmw.devices.ncnn:Ncnn",
    "onnxruntime": "nasmw.devices.onnxruntime:OnnxRuntime",
    "openvino": "nasmw.devices.openvino:OpenVino",
    "torch": "nasmw.devices.torch:Torch",
}


@attrs.frozen
class Known:
    """A registered kind of device.

    Attributes:
        name: What `get` takes.
        available: Whether it can be used here.
        missing: Why not, with the extra to install; empty where it can.
    """

    name: str
    available: bool
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.name:<16}{'available' if self.available else self.missing}"


def known() -> list[Known]:
    """Return every registered kind of device, with what it lacks here.

    Other packages register theirs by an entry point in the group ``"nasmw.devices"``, a name and a `Device` class.
    """
    found = []
    for name in sorted({*OURS, *_registered()}):
        try:
            missing = _load(name).missing() or ""
        except Exception as error:
            missing = f"cannot be imported: {type(error).__name__}: {error}"
        found.append(Known(name, not missing, missing))
    return found


def get(name: str, **arguments: Any) -> Device:
    """Return a device by the name of its kind.

    Args:
        name: The name, such as ``"onnxruntime"``.
        **arguments: What its class takes.

    Raises:
        DeviceError: If no device has that name.

    Example:
        >>> get("onnxruntime", precision="int8").name
        'onnxruntime-int8'
    """
    if name not in OURS and name not in _registered():
        raise DeviceError(f"no device is called {name!r}{did_you_mean(name, sorted({*OURS, *_registered()}))}")
    return _load(name)(**arguments)


def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(name: str) -> type[Device]:
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
    else:
        loaded = _registered()[name].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Device)):
        raise TypeError(f"the entry point {name!r} of the group {GROUP!r} is no Device class but {loaded!r}")
    return loaded
