"""Training: the loop that trains the weights of a supernet, epoch by epoch, and goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from nasmw.context import Context
from nasmw.errors import EvaluationError
from nasmw.nn import ModelSpace
from nasmw.oneshot.checkpoints import Checkpoints
from nasmw.oneshot.data import Data, Split, moved
from nasmw.oneshot.recipe import Recipe

__all__ = ["Hook", "Record", "Stateful", "Training", "forked"]

Record = dict[str, Any]
OWN = 0x5EED  # apart from the generators that stages of a chain have


class Stateful(Protocol):
    """What belongs to the state of a training: an optimizer, the scores of options."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors, numbers, texts, lists and dicts of them."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take a state back."""


class Hook:
    """Is called as a training goes on; does nothing. Override what is of use; a hook must not change the training."""

    def start(self, training: Training) -> None:
        """Called before the first epoch of this process."""

    def step(self, training: Training, loss: float) -> None:
        """Called after each step of the weights, with its loss."""

    def epoch(self, training: Training, record: Record) -> None:
        """Called after each epoch, when its record is in the log."""


class Training:
    """The training of one supernet: its weights, its optimizer, its random numbers and its records.

    Args:
        context: The run: seed, folder, log and bar.
        space: The supernet to train a fresh copy of.
        data: The examples.
        recipe: How to train.
        name: What is trained, for files and the log.
        identity: A text of all that the result depends on, besides the seed, the space and the recipe.
        hooks: Called as it goes on.

    Attributes:
        supernet: The supernet that is trained.
        rng: NumPy's generator for what is drawn in training.
        generator: torch's generator for the order of the examples.
        parts: What else is part of the state, by name; to be added to before `run`.
        epochs: How many epochs are behind it.
        history: One record for each of them.
    """

    def __init__(
        self,
        context: Context,
        space: ModelSpace,
        data: Data,
        recipe: Recipe,
        *,
        name: str,
        identity: str,
        hooks: Sequence[Hook] = (),
    ) -> None:
        if data.steps("train") < 1:
            raise ValueError(f"{data!r} has no batch for training")
        self.data = data
        self.recipe = recipe
        self.device = torch.device(recipe.device or "cpu")
        weights, paths, batches, self._noise = np.random.SeedSequence(context.seed, spawn_key=(OWN,)).spawn(4)
        with forked(torch.device("cpu"), _number(weights)):
            self.supernet = space.fresh()
        self.supernet.to(self.device)
        self.rng = np.random.default_rng(paths)
        self.generator = torch.Generator().manual_seed(_number(batches))
        self.optimizer = recipe.optimizer_of(self.supernet.parameters())
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.parts: dict[str, Stateful] = {}
        self.epochs = 0
        self.history: list[Record] = []
        self._steps = 0
        self._hooks = tuple(hooks)
        self._name = name
        self._progress = context.progress
        self.files = Checkpoints(context, name, f"{context.seed} {space.fingerprint} {data!r} {recipe!r} {identity}")

    # -- what an epoch is made of -------------------------------------------------------------------------------

    def batches(self, split: Split) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of a split in random order, on the device.

        Raises:
            ValueError: If there is none, or the batches for training are not as many as the data say.
        """
        number, wanted = 0, self.data.steps(split)
        for number, (inputs, targets) in enumerate(self.data.batches(split, self.generator), 1):
            if split == "train" and number > wanted:
                break
            yield moved(inputs, self.device), moved(targets, self.device)
        if not number or (split == "train" and number != wanted):
            raise ValueError(
                f"{self.data!r} gives {'no' if not number else f'more than {wanted}' if number > wanted else number} "
                f"batches of the split {split!r}, and its steps({split!r}) is {wanted}; they are to be as many, and at "
                "least 1"
            )

    def endless(self, split: Split) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of a split in random order, over and over again."""
        while True:
            yield from self.batches(split)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context that computes in the precision of the recipe."""
        if self.recipe.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.precision))

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss to that of the weights.

        Raises:
            EvaluationError: If the loss is not finite.
        """
        self.check(loss)
        self.scaler.scale(loss).backward()

    def check(self, loss: Tensor, what: str = "its loss") -> None:
        """Break off where a loss is no number any more.

        Raises:
            EvaluationError: If the loss is not finite.
        """
        if not bool(torch.isfinite(loss.detach())):
            raise EvaluationError(
                f"the training of {self._name} diverged in epoch {self.epochs + 1}: {what} is {loss.item()}; lower "
                f"the rate ({self.recipe.rate:g}), or clip gradients"
            )

    def update(self, loss: float) -> None:
        """Take one step of the weights, and forget their gradients."""
        share = self.recipe.rate_at(self._steps / (self.recipe.epochs * self.data.steps("train")))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        self._bar.update()
        for hook in self._hooks:
            hook.step(self, loss)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, epoch: Callable[[], Mapping[str, Any]]) -> None:
        """Train to the end of the recipe, from where an earlier process was.

        Args:
            epoch: Does one epoch, and returns what the log is to say of it.
        """
        state = self.files.load()
        self.files.check_folder()
        with forked(self.device, _number(self._noise)):
            if state is not None:
                self._restore(state)
            total = self.recipe.epochs * self.data.steps("train")
            shown = None if self._progress is None else not self._progress
            with tqdm(total=total, initial=self._steps, disable=shown, unit="batch", desc=self._name) as self._bar:
                for hook in self._hooks:
                    hook.start(self)
                while self.epochs < self.recipe.epochs:
                    begin = time.monotonic()
                    self.supernet.train()
                    record = dict(epoch())
                    self.epochs += 1
                    self.history.append(record)
                    self.files.save(self.epochs, self._state(), {**record, "seconds": time.monotonic() - begin})
                    self._bar.set_postfix({"loss": f"{record.get('loss', math.nan):.4g}"}, refresh=False)
                    for hook in self._hooks:
                        hook.epoch(self, record)
        self.supernet.eval()

    def _state(self) -> dict[str, Any]:
        return {
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": self.generator.get_state(),
            "noise": torch.get_rng_state(),
            "accelerator": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "rng": json.dumps(self.rng.bit_generator.state),
            "history": json.dumps(self.history),
            "steps": self._steps,
            "epochs": self.epochs,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["noise"])
        if state["accelerator"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["accelerator"], self.device)
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.history = json.loads(state["history"])
        self._steps = state["steps"]
        self.epochs = state["epochs"]


@contextlib.contextmanager
def forked(device: torch.device, seed: int) -> Iterator[None]:
    """Let torch draw from generators that the seed determines, and put the global ones back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _number(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
