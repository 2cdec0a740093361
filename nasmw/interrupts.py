"""Holding Ctrl-C back for a moment, where half a clean-up would be worse than none."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["uninterrupted"]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C meanwhile; does nothing outside the main thread, where Ctrl-C does not arrive.

    Example:
        >>> with uninterrupted():
        ...     signal.raise_signal(signal.SIGINT)
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
