"""The examples that a supernet is trained on, in batches."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from nasmw.strategy import describe

__all__ = ["Augment", "Data", "DatasetData", "Split", "TensorData"]

Split = Literal["train", "validation"]
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Takes inputs, ``(n, ...)``, and the generator that random numbers come from; returns inputs."""


@runtime_checkable
class Data(Protocol):
    """Gives the batches of two splits; its repr names the data, so that other data are another run."""

    def batches(self, split: Split, generator: torch.Generator | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of a split, as pairs of inputs and targets.

        Args:
            split: ``"train"`` or ``"validation"``.
            generator: What the order is drawn from; None for the order that the examples have.
        """

    def steps(self, split: Split) -> int:
        """Return the number of batches of a split."""


class TensorData:
    """Examples that stand in memory as tensors.

    Args:
        train: Inputs, ``(n, ...)``, and targets, ``(n, ...)``, that weights are trained on.
        validation: Inputs and targets that networks are compared on, and that DARTS learns its choices from.
        batch: How many examples make a batch. Where the order is random, a last batch with fewer is left out.
        augment: Changes the inputs of a batch for training, at random; None for none.

    Raises:
        TypeError: If a split is no pair of tensors.
        ValueError: If inputs and targets are not equally many, or fewer than a batch.

    Example:
        >>> import torch
        >>> inputs, targets = torch.arange(12.0).reshape(6, 2), torch.arange(6)
        >>> data = TensorData((inputs, targets), (inputs[:2], targets[:2]), batch=2)
        >>> data.steps("train"), [len(labels) for _, labels in data.batches("validation")]
        (3, [2])
    """

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        batch: int = 64,
        augment: Augment | None = None,
    ) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"TensorData(batch=...) takes a whole number of at least 1, got {batch!r}")
        self._splits = {name: _pair(name, given) for name, given in (("train", train), ("validation", validation))}
        if len(self._splits["train"][0]) < batch:
            raise ValueError(
                f"TensorData has {len(self._splits['train'][0])} examples for training, fewer than a batch of {batch}"
            )
        self.batch = batch
        self.augment = augment

    @cached_property
    def digest(self) -> str:
        """A checksum of all examples, eight hexadecimal digits."""
        checksum = 0
        for pair in self._splits.values():
            for tensor in pair:
                array = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                checksum = zlib.crc32(repr((tensor.dtype, tuple(tensor.shape))).encode(), checksum)
                checksum = zlib.crc32(array.numpy().data, checksum)
        return f"{checksum:08x}"

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(inputs)}" for name, (inputs, _) in self._splits.items())
        return f"TensorData({sizes}, batch={self.batch}, augment={describe(self.augment)}, digest={self.digest!r})"

    def steps(self, split: Split) -> int:
        """Return the number of batches of a split: for training whole ones, for validation all."""
        n = len(self._splits[split][0])
        return n // self.batch if split == "train" else -(-n // self.batch)

    def batches(self, split: Split, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a split; in random order, and with augmented inputs, where a generator is given."""
        inputs, targets = self._splits[_split(split)]
        if generator is None:
            yield from zip(inputs.split(self.batch), targets.split(self.batch), strict=True)
            return
        order = torch.randperm(len(inputs), generator=generator)
        batch = min(self.batch, len(inputs))
        for rows in order[: len(order) // batch * batch].split(batch):
            chosen = inputs[rows]
            yield chosen if self.augment is None else self.augment(chosen, generator), targets[rows]


class DatasetData:
    """Examples of two `torch.utils.data.Dataset`, read by `torch.utils.data.DataLoader`.

    What an example looks like must follow from its index, or from torch's generator in the loader's workers.

    Args:
        train: The dataset that weights are trained on; it has a length.
        validation: The dataset that networks are compared on.
        batch: How many examples make a batch. Where the order is random, a last batch with fewer is left out.
        workers: The number of processes that read; 0 to read in this one.
        name: What the data are called: it stands in the log, and is what tells one data set from another.
        **options: Further arguments of the loaders, such as ``pin_memory`` or ``collate_fn``.

    Raises:
        ValueError: If there is no name, no example for validation, or fewer examples for training than a batch.
    """

    def __init__(
        self, train: Any, validation: Any, batch: int = 64, *, name: str, workers: int = 0, **options: Any
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"DatasetData needs the name of the data, such as name='cifar10', got {name!r}")
        if len(train) < batch:
            raise ValueError(f"DatasetData has {len(train)} examples for training, fewer than a batch of {batch}")
        if not len(validation):
            raise ValueError("DatasetData has no examples for validation, by which networks are compared")
        self._splits = {"train": train, "validation": validation}
        self.batch = batch
        self.name = name
        self.workers = workers
        self._options = options

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(dataset)}" for name, dataset in self._splits.items())
        return f"DatasetData({self.name!r}, {sizes}, batch={self.batch})"

    def steps(self, split: Split) -> int:
        """Return the number of batches of a split: for training whole ones, for validation all."""
        n = len(self._splits[_split(split)])
        return n // self.batch if split == "train" else -(-n // self.batch)

    def batches(self, split: Split, generator: torch.Generator | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of a split; in random order where a generator is given."""
        dataset = self._splits[_split(split)]
        yield from torch.utils.data.DataLoader(
            dataset,
            batch_size=min(self.batch, len(dataset)),
            shuffle=generator is not None,
            drop_last=generator is not None,
            generator=generator,
            num_workers=self.workers,
            **self._options,
        )


def _split(split: str) -> str:
    if split not in get_args(Split):
        raise ValueError(f"the splits are {get_args(Split)}, got {split!r}")
    return split


def _pair(name: str, given: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(given, (tuple, list)) or len(given) != 2 or not all(isinstance(part, Tensor) for part in given):
        raise TypeError(
            f"TensorData({name}=...) takes a pair of tensors, inputs and targets, got {type(given).__name__}"
        )
    inputs, targets = given
    if len(inputs) != len(targets) or not len(inputs):
        raise ValueError(f"TensorData({name}=...) has {len(inputs)} inputs and {len(targets)} targets")
    return inputs, targets


def moved(value: Any, device: torch.device) -> Any:
    """Return inputs or targets on a device: a tensor, or a dict, list or tuple of what may be moved."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        found = copy.copy(value)
        found.update({name: moved(item, device) for name, item in value.items()})
        return found
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(item, device) for item in value))
    if type(value) in (list, tuple):
        return type(value)(moved(item, device) for item in value)
    return value
