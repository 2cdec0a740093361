"""Collapse: a supernet's choices that end in skip connections, whatever the layers beside them are worth."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nasmw.nn import LayerChoice, ModelSpace

__all__ = ["Skips"]

logger = logging.getLogger("nasmw")
MANY = 2 / 3
"""The share of the layers that could be skipped beyond which there is a warning."""


class Skips:
    """Which layer choices of a space decide between a layer and nothing, and how many of them an architecture skips.

    An option is a skip where it is `torch.nn.Identity`, or a `torch.nn.Sequential` of nothing else.

    Args:
        space: The space.

    Attributes:
        options: For each such choice, by name, the options that are skips.
    """

    def __init__(self, space: ModelSpace) -> None:
        self.options: dict[str, frozenset[Any]] = {}
        for choice in space.choices:
            layers = [place.module for place in space.places(choice.name) if isinstance(place.module, LayerChoice)]
            skips = frozenset(
                option for option in choice.options if layers and all(_is_skip(layer[option]) for layer in layers)
            )
            if 0 < len(skips) < len(choice.options):
                self.options[choice.name] = skips

    def count(self, architecture: Mapping[str, Any]) -> tuple[int, int]:
        """Return how many layers an architecture skips, and how many it could skip."""
        could = [name for name in self.options if name in architecture]
        return sum(architecture[name] in self.options[name] for name in could), len(could)

    def report(self, name: str, history: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> str | None:
        """Warn of a collapse: at least two layers could be skipped in the end, and more than two thirds of them are.

        Args:
            name: The strategy.
            history: Its records, with ``"skips"`` and ``"skippable"`` where the space has skips.
            terms: The terms of the loss that made layers dear, as text.

        Returns:
            The warning; None where there is none.
        """
        if not history or not _collapsed(history[-1]):
            return None
        since = len(history)
        while since > 1 and _collapsed(history[since - 2]):
            since -= 1
        last = history[-1]
        why = (
            f"the loss has cost terms ({', '.join(terms)}), by which skips are cheap; search without them as well, to "
            "tell their price from a collapse"
            if terms
            else "no cost was paid for, so their price is not the reason"
        )
        message = (
            f"the likeliest network of {name} skips {last['skips']} of the {last['skippable']} layers it can skip, "
            f"since epoch {since} of {len(history)}: mixtures are known to collapse into skip connections, which are "
            f"the easiest to learn early on; {why}. Compare it with networks that were trained from scratch, train the "
            "weights alone for longer (warmup), or score single paths by SupernetEvaluator"
        )
        logger.warning(message)
        return message


def _collapsed(record: Mapping[str, Any]) -> bool:
    return bool(record.get("skippable", 0) >= 2 and record["skips"] > MANY * record["skippable"])


def _is_skip(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential):
        return all(map(_is_skip, module))
    return isinstance(module, nn.Identity)
