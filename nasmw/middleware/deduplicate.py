"""Deduplicate: no network is trained twice."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Literal

import attrs
import numpy as np

from nasmw.candidates import BUDGET, Candidates, Outcomes, Status
from nasmw.context import Context
from nasmw.middleware.values import check_count, evaluation_keys
from nasmw.strategy import Middleware, Verdict

__all__ = ["Deduplicate"]

HELD_AT_ONCE = 32
"""How many duplicates of unfinished trials one ask holds back before it waits for outcomes."""
FORGOTTEN = frozenset({Status.INFEASIBLE, Status.SKIPPED, Status.DUPLICATE})


@attrs.frozen(eq=False)
class _Known:
    """What is known of a trial: how reasons call it, and the one row of its outcome where it is to be replayed."""

    name: str
    outcome: Outcomes | None


class Deduplicate(Middleware):
    """Passes each network once; it compares networks, not what they score.

    Two candidates are the same where their rows are, or where the space's `function_key` says so; with
    ``same="architecture"`` only where their rows are. That is for objectives that differ between architectures with
    one function: on NAS-Bench-201, cells that compute the same were measured with other latencies, and the front of
    accuracy and latency has several of them.

    What became a trial is remembered, failed ones too, and so is what was adopted from an earlier run. What passed and
    was then turned away or ranked out by a stage above is forgotten again. A second one within one batch is a duplicate
    of the first. Where a strategy gives budgets, a network with another budget is another candidate.

    Once every architecture of the space has become a trial, the run ends with a message, unless there are budgets.

    Args:
        action: What a duplicate is told. ``"skip"``: that it is a duplicate, without a score. ``"replay"``: that it is
            a duplicate, with the scores and metrics of the known trial (none where that failed); a duplicate of a
            trial that is not finished is held back until it is, and is told skipped if a stage above turns that away.
        patience: How many duplicates in a row end the run with a message.
        same: ``"function"`` or ``"architecture"``: what two candidates have in common that are duplicates.

    Raises:
        TypeError: If `patience` is no integer.
        ValueError: If `action` is neither ``"skip"`` nor ``"replay"``, `same` is neither ``"function"`` nor
            ``"architecture"``, or `patience` is below 1.

    Example:
        >>> Deduplicate("replay")
        Deduplicate(action='replay', patience=1000, same='function')
    """

    def __init__(
        self,
        action: Literal["skip", "replay"] = "skip",
        patience: int = 1000,
        same: Literal["function", "architecture"] = "function",
    ) -> None:
        if action not in ("skip", "replay"):
            raise ValueError(f"Deduplicate(action=...) takes 'skip' or 'replay', got {action!r}")
        if same not in ("function", "architecture"):
            raise ValueError(f"Deduplicate(same=...) takes 'function' or 'architecture', got {same!r}")
        self.action = action
        self.patience = check_count("Deduplicate", "patience", patience)
        self.same = same

    def _setup(self, context: Context) -> None:
        self._size: float = context.space.size
        self._known: dict[Hashable, _Known] = {}
        self._unfinished: dict[Hashable, int] = {}
        self._key_of: dict[int, Hashable] = {}
        self._held: dict[Hashable, list[Candidates]] = {}
        self._held_now = 0

    def _ask(self, n: int) -> Candidates:
        self._held_now = 0
        return super()._ask(n)

    def _must_wait(self) -> bool:
        return self._held_now >= HELD_AT_ONCE or len(self._known) + len(self._unfinished) >= self._size

    def _screen(self, candidates: Candidates) -> Verdict:
        n = len(candidates)
        passes = np.ones(n, dtype=np.bool_)
        held: list[int] = []
        reasons = [""] * n
        ids = candidates.ids.tolist()
        for row, key in enumerate(self._keys(candidates)):
            known = self._known.get(key)
            if known is None and key not in self._unfinished:
                self._unfinished[key] = ids[row]
                self._key_of[ids[row]] = key
                continue
            passes[row] = False
            first = f"candidate {self._unfinished[key]}" if known is None else known.name
            reasons[row] = f"the same network as {first}"
            if self.action == "replay":
                held.append(row)
                if known is None:
                    self._held.setdefault(key, []).append(candidates[row])
                    self._held_now += 1
                else:
                    self._replay(candidates[row], known)
        if not held:
            return Verdict(passes, ["seen before"] * n, reasons, Status.DUPLICATE)
        mask = np.zeros(n, dtype=np.bool_)
        mask[held] = True
        return Verdict(passes, held=mask)

    def _tell(self, outcomes: Outcomes) -> None:
        super()._tell(outcomes)
        finished = []
        for row, number in enumerate(outcomes.ids.tolist()):
            key = self._key_of.pop(number)
            del self._unfinished[key]
            if outcomes.status[row] not in FORGOTTEN:
                self._remember(key, f"candidate {number}", outcomes, row)
            if key in self._held:
                finished.append(key)
        for key in finished:
            for candidate in self._held.pop(key):
                if key in self._known:
                    self._replay(candidate, self._known[key])
                else:
                    self.turn_away(candidate, Status.SKIPPED, ["the same network was turned away"])
        self._end_if_all_known()

    def _adopt(self, outcomes: Outcomes) -> None:
        super()._adopt(outcomes)
        for row, key in enumerate(self._keys(outcomes.candidates)):
            if outcomes.status[row] not in FORGOTTEN and key not in self._known:
                self._remember(key, "a trial of an earlier run", outcomes, row)
        self._end_if_all_known()

    def _keys(self, candidates: Candidates) -> list[Hashable]:
        if BUDGET in candidates.columns:
            self._size = math.inf
        return evaluation_keys(self.context.space, candidates, self.same)

    def _remember(self, key: Hashable, name: str, outcomes: Outcomes, row: int) -> None:
        outcome = None
        if self.action == "replay":
            outcome = outcomes if len(outcomes) == 1 else outcomes[row : row + 1]
        self._known[key] = _Known(name, outcome)

    def _replay(self, candidate: Candidates, known: _Known) -> None:
        """Tell the inner strategy of a duplicate what its first one was told."""
        context = self.context
        context.funnel.add(context.stage, str(Status.DUPLICATE), "seen before")
        outcome = known.outcome
        if outcome is None:
            return
        reason = f"the same network as {known.name}"
        self.tell_inner(Outcomes(candidate, [Status.DUPLICATE], outcome.scores, outcome.metrics, [reason]))

    def _end_if_all_known(self) -> None:
        if len(self._known) >= self._size:
            self._end(f"{self.context.stage}: all {self._size} architectures of {self.context.space!r} have been tried")

    def _out_of_patience(self) -> str:
        return (
            f"{self.context.stage} saw {self._in_a_row} duplicates in a row; {len(self._known)} networks have been "
            f"tried and {len(self._unfinished)} are under way. The strategy has little new to give: stop here, widen "
            f"the space, make the strategy explore more, or go on for longer with patience=... (now {self.patience})"
        )
