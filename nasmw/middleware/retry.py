"""Retry: what failed is tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.context import Context
from nasmw.errors import did_you_mean
from nasmw.middleware.reissue import TURNED_AWAY, Reissued, under_id
from nasmw.middleware.values import check_count
from nasmw.strategy import Middleware, batch_of_none

__all__ = ["Retry"]

RETRIED = (Status.FAILED, Status.STOPPED)


@attrs.define(eq=False)
class _Attempt:
    """A candidate of the inner strategy, how often it was tried, and what came of it last."""

    candidate: Candidates
    tries: int = 1
    last: Outcomes | None = None


class Retry(Middleware):
    """Has a candidate tried again where its trial failed; the strategy below is told of the last trial only.

    Each try is a trial of its own, with a seed of its own, and stands in the log. What is to be tried again goes
    before what is new. Stages above see each try as another candidate: `Deduplicate` belongs below this stage, since
    above it would turn every second try away; the strategy is then told of the first.

    Args:
        times: How often one candidate is tried again at most.
        on: The statuses after which it is: ``"failed"``, ``"stopped"``, or both.

    Raises:
        TypeError: If `times` is no integer.
        ValueError: If `times` is below 1, or `on` is empty or has another status. Candidates that were turned away
            would be turned away again.

    Example:
        >>> Retry(times=2)
        Retry(times=2, on=['failed'])
    """

    def __init__(self, times: int = 1, on: str | Iterable[str] = "failed") -> None:
        self.times = check_count("Retry", "times", times)
        given = [on] if isinstance(on, str) else list(on)
        known = [str(status) for status in RETRIED]
        for status in given:
            if status not in known:
                raise ValueError(
                    f"Retry(on=...) takes {' and '.join(map(repr, known))}, got {status!r}"
                    f"{did_you_mean(str(status), known)}"
                )
        if not given:
            raise ValueError(f"Retry(on=...) needs a status: {' or '.join(map(repr, known))}")
        self.on = sorted({str(Status(status)) for status in given})

    @property
    def exhausted(self) -> bool:
        """Whether nothing waits to be tried again, and the inner strategy is exhausted."""
        return not self._waiting and super().exhausted

    def _setup(self, context: Context) -> None:
        self._waiting: deque[_Attempt] = deque()
        self._tried: Reissued[_Attempt] = Reissued()

    def _ask(self, n: int) -> Candidates:
        attempts = [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]
        if len(attempts) < n:
            batch = self.inner.ask(n - len(attempts))
            attempts += [_Attempt(batch[row]) for row in range(len(batch))]
        if not attempts:
            return batch_of_none(self.context.space)
        return self._tried.issue([(attempt.candidate, attempt) for attempt in attempts])

    def _tell(self, outcomes: Outcomes) -> None:
        last = []
        for row, number in enumerate(outcomes.ids.tolist()):
            attempt = self._tried.take(number)
            outcome = outcomes[row]
            status = outcome.status[0]
            if str(status) in self.on and attempt.tries <= self.times:
                attempt.tries += 1
                attempt.last = outcome
                self._waiting.append(attempt)
                continue
            if status in TURNED_AWAY and attempt.last is not None:
                outcome = attempt.last
            last.append(under_id(outcome, attempt.candidate))
        if last:
            self.tell_inner(Outcomes.join(last))
