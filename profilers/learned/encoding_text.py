"""Encodings by name: ``"slots + slots * resolution^2"`` and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from nasmw.errors import ProfilerError, did_you_mean
from nasmw.profilers.learned.arch2vec import Arch2Vec
from nasmw.profilers.learned.cate import Cate
from nasmw.profilers.learned.costs import Costs, Counts
from nasmw.profilers.learned.encodings import Encoding, Interaction, Joined, OneHot, Slots, numeric_options
from nasmw.profilers.learned.graph_encoding import GraphEncoding
from nasmw.profilers.learned.graphs import Adjacency
from nasmw.profilers.learned.layers import LayerCounts, LayerWork, PlacedCounts
from nasmw.profilers.learned.structure import Blocks, Structure
from nasmw.profilers.learned.trained_encodings import GraphPCA
from nasmw.space import Space

__all__ = ["NAMED", "default_encoding", "make_encoding"]

TOKEN = re.compile(r'\s*(?:([A-Za-z_][\w.\-]*|"(?:[^"\\]|\\.)*")|(\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(.))')

NAMED: dict[str, Callable[..., Encoding]] = {
    "adjacency": Adjacency,
    "arch2vec": Arch2Vec,
    "blocks": Blocks,
    "cate": Cate,
    "costs": Costs,
    "counts": Counts,
    "graph": GraphEncoding,
    "graph_pca": GraphPCA,
    "layers": LayerCounts,
    "one_hot": OneHot,
    "placed": PlacedCounts,
    "slots": Slots,
    "structure": Structure,
    "work": LayerWork,
}
"""What makes the encoding of each name; further ones may be added."""


def make_encoding(encoding: Encoding | str, given: Mapping[str, Encoding] | None = None) -> Encoding:
    """Return an encoding by its text.

    A text is a sum of products: names of encodings joined by ``+``, each multiplied by powers of choices if wished, as
    in ``"slots + slots * resolution^2 + costs(log)"``. Names of choices that are no words stand in double quotes.

    Args:
        encoding: The text, or an encoding, which is returned as it is.
        given: Further encodings by name, such as those that hold values of the user's own.

    Raises:
        TypeError: If it is neither.
        ProfilerError: If the text cannot be read, or a name is unknown.

    Example:
        >>> make_encoding("slots + slots * resolution^2")
        <encoding slots + slots * resolution^2>
    """
    if isinstance(encoding, Encoding):
        return encoding
    if not isinstance(encoding, str):
        raise TypeError(f"an encoding is an Encoding or a text such as 'one_hot', got {encoding!r}")
    for name, own in (given or {}).items():
        if not isinstance(own, Encoding):
            raise TypeError(f"given={{...}} maps names to encodings, got {own!r} for {name!r}")
    return _Reader(encoding, {**NAMED, **{name: (lambda own=own: own) for name, own in (given or {}).items()}}).read()


def default_encoding(space: Space) -> Encoding:
    """Return the encoding of a profiler that was given none.

    Slots; where the space has a choice named ``"resolution"`` that every architecture has, also slots times its square.
    """
    if "resolution" in space.names:
        choice = space.choices[space.column("resolution")]
        if not choice.when and numeric_options(choice.options):
            return Slots() + Interaction(Slots(), "resolution", 2)
    return Slots()


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, named: Mapping[str, Callable[..., Encoding]]) -> None:
        self._text = text
        self._named = named
        self._tokens = [match.groups() for match in TOKEN.finditer(text) if match.group().strip()]
        self._place = 0

    def read(self) -> Encoding:
        encoding = self._sum()
        if self._place < len(self._tokens):
            self._fail(f"{self._peek()!r} was not expected")
        return encoding

    def _fail(self, why: str) -> NoReturn:
        raise ProfilerError(
            f"the encoding {self._text!r} cannot be read: {why}; it is written like 'slots + slots * resolution^2'"
        )

    def _peek(self) -> str:
        return next(filter(None, self._tokens[self._place])) if self._place < len(self._tokens) else ""

    def _take(self, symbol: str) -> bool:
        if self._peek() != symbol:
            return False
        self._place += 1
        return True

    def _word(self, kind: int, what: str) -> str:
        token = self._tokens[self._place][kind] if self._place < len(self._tokens) else None
        if token is None:
            self._fail(f"{what} was expected, and {self._peek()!r} is there" if self._peek() else f"{what} is missing")
        self._place += 1
        return str(token)

    def _sum(self) -> Encoding:
        parts = list(self._product().parts)
        while self._take("+") or self._take("&"):
            parts += self._product().parts
        return parts[0] if len(parts) == 1 else Joined(parts)

    def _product(self) -> Encoding:
        encoding = self._atom()
        while self._take("*"):
            choice = self._word(0, "the name of a choice")
            if choice.startswith('"'):
                choice = str(json.loads(choice))
            power = 1.0
            if self._take("^"):
                sign = -1.0 if self._take("-") else 1.0
                power = sign * float(self._word(1, "a power"))
            encoding = Interaction(encoding, choice, power)
        return encoding

    def _atom(self) -> Encoding:
        if self._take("("):
            encoding = self._sum()
            self._closed()
            return encoding
        name = self._word(0, "the name of an encoding")
        if name not in self._named:
            self._fail(f"there is no encoding {name!r}{did_you_mean(name, sorted(self._named))}")
        arguments: list[Any] = []
        if self._take("("):
            arguments.append(self._word(0, "an argument"))
            while self._take(","):
                arguments.append(self._word(0, "an argument"))
            self._closed()
        try:
            return self._named[name](*arguments)
        except TypeError:
            self._fail(f"{name!r} does not take the arguments {arguments}")

    def _closed(self) -> None:
        if not self._take(")"):
            self._fail("a ')' is missing")
