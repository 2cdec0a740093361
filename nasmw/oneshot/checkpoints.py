"""Checkpoints: the state of a training in a file for each epoch, its digest in the log."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nasmw.context import Context
from nasmw.errors import LogError

__all__ = ["Checkpoints"]

logger = logging.getLogger("nasmw")


class Checkpoints:
    """Keeps the state of one training beside the log, and finds it again.

    A file is written before the epoch is noted in the log, and the file of the epoch before is removed after that: a
    run that is killed at any instant finds one that the log knows. Without a log nothing is kept.

    Args:
        context: The run.
        name: What is trained; files are called ``<name>-<epoch>.pt``.
        identity: What the training depends on; a state of another identity is not gone on with.
    """

    def __init__(self, context: Context, name: str, identity: str) -> None:
        self._recorder = context.recorder
        self._folder = None if context.folder is None else Path(context.folder)
        self._name = name
        self.identity = hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()
        self.path: Path | None = None
        self.sha256 = ""

    def _notes(self) -> list[dict[str, Any]]:
        return [note for note in self._recorder.notes() if note.get("name") == self._name]

    @property
    def foreign(self) -> bool:
        """Whether the log knows of a training of this name, and the last one has another identity."""
        notes = self._notes()
        return bool(notes) and notes[-1]["identity"] != self.identity

    def load(self) -> dict[str, Any] | None:
        """Return the state after the last epoch that log and files agree on; None where there is none."""
        own = [note for note in self._notes() if note["identity"] == self.identity and note.get("file")]
        if self._folder is None or not own:
            return None
        for note in reversed(own):
            path = self._folder / note["file"]
            if path.is_file() and (digest := _digest(path)) == note["sha256"]:
                self.path, self.sha256 = path, digest
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
        logger.warning(
            "the weights of %s after epoch %d are not in %s any more, or were changed; they are trained again",
            self._name,
            own[-1]["epoch"],
            self._folder,
        )
        return None

    def check_folder(self) -> None:
        """Make the folder, and check that files can be written there; better known before an epoch than after.

        Raises:
            LogError: If they cannot.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise LogError(
                f"the weights of {self._name} are to be kept in {self._folder}, beside the log, and nothing can be "
                f"written there ({error}); log to a folder that is yours"
            ) from error

    def save(self, epoch: int, state: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Write the state after an epoch, and note it in the log.

        Args:
            epoch: The number of epochs that are behind it.
            state: What `load` is to return: tensors, numbers, texts, and lists and dicts of them.
            record: What the log says of the epoch.
        """
        note = {"name": self._name, "identity": self.identity, "epoch": epoch, **record}
        former = self.path
        if self._folder is not None:
            path = self._folder / f"{self._name}-{epoch}.pt"
            unfinished = path.with_suffix(".tmp")
            try:
                torch.save(dict(state), unfinished)
                os.replace(unfinished, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    unfinished.unlink()
                raise
            self.path, self.sha256 = path, _digest(path)
            note |= {"file": path.name, "sha256": self.sha256}
        self._recorder.note(note)
        if former is not None and former != self.path:
            with contextlib.suppress(OSError):
                former.unlink()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        found = hashlib.sha256()
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
