"""Walk: an assignment that is made one variable after the other, among options that still lead within the limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nasmw.binned import Binned, Front
from nasmw.candidates import Codes
from nasmw.errors import ConstraintError

__all__ = ["Walk"]

WITNESSES = 64
SEARCHED = 2**16


class Walk:
    """One assignment on its way: names the next variable, says which options it may take, and takes one.

    An option may be taken where an assignment within the limits goes on with it. Variables that do not matter, or have
    one such option left, are decided without being named, so that every step is a decision. The order is that of the
    graph behind the counts: gates come before what they gate.

    Where bins round costs, or a limit is not part of the graph, an option is shown to be open by an assignment that
    meets the limits: one of 64 random ones, else one found by going through them all. After 65,536 that do not meet
    them the option counts as closed.

    Args:
        counts: The counted paths; not empty.
        holds: Says which rows of codes, ``(n, d)``, meet all limits; None where all that is counted does.
        highest: What a path may have spent at most of the one cost so that a path on to the end surely meets the
            limits; -1 where that is not known.

    Raises:
        ConstraintError: If no assignment that meets the limits is found.

    Example:
        >>> from nasmw import Choice, Space
        >>> from nasmw.cost import CostTable
        >>> from nasmw.feasible import FeasibleSet
        >>> from nasmw.tabled import TabledProfiler
        >>> space = Space([Choice("a", (1, 2, 3)), Choice("b", (1, 2, 3))])
        >>> width = TabledProfiler(CostTable(space, [(("a",), [1, 2, 3]), (("b",), [1, 2, 3])], name="width"))
        >>> walk = FeasibleSet(space, width <= 4).walk()
        >>> walk.variable, walk.options
        (0, (0, 1, 2))
        >>> walk.take(1)
        >>> walk.variable, walk.options
        (1, (0, 1))
        >>> walk.take(0)
        >>> walk.variable, walk.codes
        (None, array([[1, 0]], dtype=uint8))
    """

    def __init__(
        self, counts: Binned, holds: Callable[[Codes], npt.NDArray[np.bool_]] | None = None, highest: int = -1
    ) -> None:
        self._counts = counts
        self._holds = holds
        self._highest = highest
        self._layers = counts.diagram.layers
        self._ahead = counts.extended(counts.root)  # all ways through the layer that is being decided
        self._place = 0
        self._known = False  # whether what was decided so far is known to lead within the limits
        self._variable: int | None = None
        self._options: tuple[int, ...] = ()
        self._go_on()

    @property
    def variable(self) -> int | None:
        """The column of the next choice to decide; None once all are."""
        return self._variable

    @property
    def options(self) -> tuple[int, ...]:
        """The codes of its options that may be taken, two or more, ascending; none once all is decided."""
        return self._options

    @property
    def codes(self) -> Codes:
        """``(1, d)`` what is decided; 0 for the rest."""
        return self._ahead.codes[:1] if self._variable is None else self._ahead.codes[:1] * self._decided

    @property
    def _decided(self) -> npt.NDArray[np.bool_]:
        behind = [variable for layer in self._layers[: self._ahead.number - 1] for variable in layer.variables]
        decided = np.zeros(self._ahead.codes.shape[1], dtype=np.bool_)
        decided[behind + list(self._layers[self._ahead.number - 1].variables[: self._place])] = True
        return decided

    def take(self, option: int) -> None:
        """Decide the next variable.

        Raises:
            ValueError: If the option may not be taken, or all is decided.
        """
        if option not in self._options:
            raise ValueError(f"option {option!r} is none of {self._options} of variable {self._variable}")
        self._keep(option)
        self._go_on()

    def _keep(self, option: int) -> None:
        variable = self._layers[self._ahead.number - 1].variables[self._place]
        self._ahead = self._ahead[np.flatnonzero(self._ahead.codes[:, variable] == option)]
        self._place += 1

    def _go_on(self) -> None:
        """Go to the next variable that has several options, past those that have one."""
        while True:
            layer = self._layers[self._ahead.number - 1]
            if self._place == len(layer.variables):
                if self._ahead.number == len(self._layers):
                    self._variable, self._options = None, ()
                    return
                self._ahead = self._counts.extended(self._ahead)
                self._place = 0
                continue
            variable = layer.variables[self._place]
            options = self._open(variable)
            if len(options) > 1:
                self._variable, self._options = variable, options
                return
            self._keep(options[0])

    def _open(self, variable: int) -> tuple[int, ...]:
        """Return the options of a variable that lead to an assignment within the limits."""
        ahead = self._ahead
        column = ahead.codes[:, variable]
        listed: list[int] = np.unique(column).tolist()
        if self._holds is None or (len(listed) == 1 and self._known):
            return tuple(listed)
        proved: set[int] = set()
        if self._highest >= 0:
            proved.update(column[ahead.spent[0] <= self._highest].tolist())
        if len(proved) < len(listed):
            drawn = self._counts.drawn(ahead, WITNESSES, np.random.default_rng(0))
            proved.update(drawn[self._holds(drawn), variable].tolist())
        found = [
            option for option in listed if option in proved or self._leads(ahead[np.flatnonzero(column == option)])
        ]
        if not found:
            raise ConstraintError(f"no architecture within all limits was found among {SEARCHED}")
        self._known = True
        return tuple(found)

    def _leads(self, ahead: Front) -> bool:
        """Return whether some assignment that goes on from here meets the limits."""
        assert self._holds is not None  # asked only where there is something to check
        searched = 0
        for codes in self._counts.paths(ahead):
            if self._holds(codes).any():
                return True
            searched += len(codes)
            if searched >= SEARCHED:
                return False
        return False
