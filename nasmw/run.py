"""Run: one call of `Search.run`, the loop and the replay of a log."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from tqdm import tqdm

from nasmw.audit import audited
from nasmw.candidates import BUDGET, RESUME_FROM, STOP_ABOVE, STOP_BELOW, TRIAL, Candidates, Outcomes, Status
from nasmw.context import Context, Funnel
from nasmw.errors import (
    ConstraintError,
    DeadlockError,
    EvaluationError,
    LogMismatchError,
    SearchInterrupted,
    SpaceError,
)
from nasmw.evaluator import Evaluator
from nasmw.executors import Executor
from nasmw.interrupts import uninterrupted
from nasmw.log import Event, Log, TrialRecord
from nasmw.result import Result
from nasmw.space import Space
from nasmw.trial import Task, TaskResult

if TYPE_CHECKING:
    from nasmw.search import Search

__all__ = ["Run"]

logger = logging.getLogger("nasmw")

LEFT_OPEN = "left open by a warm restart"


@attrs.define(eq=False)
class _Open:
    """A trial that was asked and not yet told."""

    candidate: Candidates
    record: TrialRecord
    finished: bool = False


class Run:
    """One call of `Search.run`: the state of the loop."""

    def __init__(self, search: Search, log: Log, trials: float, seconds: float) -> None:
        self.search = search
        self.log = log
        self.trials = trials
        self.seconds = seconds
        self.folder = None if log.path is None else f"{log.path}.weights"
        self.context = Context(
            search.space,
            search.objectives,
            search.seed,
            funnel=Funnel(),
            recorder=log,
            folder=self.folder,
            progress=search.progress,
        )
        self.records: dict[int, TrialRecord] = {}
        self.open: dict[int, _Open] = {}  # in asking order
        self.queue: deque[int] = deque()  # asked, not yet submitted
        self.arrived: deque[int] = deque()  # finished, in order of arrival, not yet told
        self.running = 0
        self.asked = 0
        self.dry = False  # the last ask gave nothing, and nothing was told since
        self.best = math.nan
        self.failures = 0
        self.started = False  # whether the chain is where the log ends

    # -- the whole ----------------------------------------------------------------------------------------------

    def result(self) -> Result:
        """Run to the end and return what was found."""
        try:
            self.start()
            ended = self.work()
        except KeyboardInterrupt:
            with uninterrupted():
                self.log.event("interrupted")
                # Before the replay is complete, the log knows better.
                self.log.commit(self.context.funnel if self.started else None)
            done = sum(record.status is not None for record in self.records.values())
            how = (
                f"start it again with log={str(self.log.path)!r} to go on from there"
                if self.log.path
                else "it had no log; with log='run.db' a run can be gone on with"
            )
            raise SearchInterrupted(f"the search was interrupted after {done} finished trials; {how}") from None
        if not self.records and ended:
            raise ConstraintError(f"the search ended before its first trial: {ended}")
        return Result(
            self.search.space,
            self.search.objectives,
            tuple(self.records.values()),
            funnel=self.log.funnel(),
            stages=[repr(stage) for stage in self.search.strategy.stages],
            ended=ended,
            recorded=self.log.recorded_values(),
            weights=self.folder,
        )

    def work(self) -> str:
        """Have trials evaluated; return why the run ended, where it was the chain or the clock."""
        executor = self.search.executor
        if self.queue or self.asked < self.trials:
            self.prepare()
            executor.start(self.search.space, audited(self.search.evaluate, self.search.wanted))
        cancel = True
        try:
            with self.progress_bar() as bar:
                ended = self.loop(bar)
            cancel = False
        finally:
            executor.close(cancel=cancel)
        return ended

    def prepare(self) -> None:
        """Have the evaluation prepare itself, where it must."""
        evaluate = self.search.evaluate
        if isinstance(evaluate, Evaluator):
            limits = tuple(limit for stage in self.search.strategy.stages for limit in stage.honoured)
            begun = self.asked - self.context.adopted
            evaluate.prepare(attrs.evolve(self.context, limits=limits, begun=begun))

    def start(self) -> None:
        """Set up the chain, and bring it to where the log ends."""
        log, search = self.log, self.search
        fingerprint = log.meta("space")
        if log.path is not None:
            _check_lasting(search.space)
        if not log.holds_trials:  # a former start that came to nothing binds nobody
            log.forget(values=fingerprint != search.space.fingerprint)
            log.write_meta("space", search.space.fingerprint)
            log.write_meta("choices", json.dumps(search.space.describe()))
            log.write_meta("name", search.space.name)
        elif fingerprint != search.space.fingerprint:
            raise LogMismatchError(
                f"{log.path} is the log of another space ({_difference(log.meta('choices'), search.space)}); "
                "log this search to another file"
            )
        events = list(log.events())
        begin = max((place for place, event in enumerate(events) if event.kind == "begin"), default=-1)
        for record in log.trials(search.space):
            self.records[record.number] = record
        self.asked = len(self.records)
        if begin < 0 or search.resume == "warm":
            self.begin(events)
        else:
            self.check_description(events[begin].data)
            self.setup(events[:begin])
            self.replay(self.without_tail(events[begin + 1 :]))
        log.commit()
        self.started = True
        if self.asked:
            logger.warning(
                "%s holds %d trials, %d of them finished; the search goes on from trial %d",
                log.path,
                self.asked,
                sum(record.status is not None for record in self.records.values()),
                self.asked,
            )

    def begin(self, events: list[Event]) -> None:
        """Start a chain afresh, and tell it of all trials that are finished."""
        told = {event.number for event in events if event.kind == "tell"}
        late = [
            Event(0, "tell", record.number, {})
            for record in self.records.values()
            if record.status is not None and record.number not in told and record.reason != LEFT_OPEN
        ]
        self.setup([*events, *late])
        # Written at once and last: a chain that refuses its setup leaves the log to the former one, and so does a kill.
        for record in self.records.values():
            if record.status is None:  # nobody waits for it any more
                record = attrs.evolve(record, status=Status.STOPPED, reason=LEFT_OPEN)
                self.records[record.number] = record
                self.log.finished(record, commit=False)
        for event in late:
            self.log.event("tell", event.number)
        self.log.event("begin", None, self.search.describe())

    def setup(self, events: list[Event]) -> None:
        """Set up the chain, and have it adopt the trials that earlier ones were told."""
        asked = sum(event.kind == "ask" for event in events)
        self.context = attrs.evolve(self.context, adopted=asked)
        self.search.strategy.setup(self.context)
        self.search.strategy.train(self.context)
        for event in events:
            if event.kind == "tell" and event.number is not None:
                record = self.records[event.number] = self.known(self.records[event.number])
                self.search.strategy.adopt(self.outcome(self.candidate(record), record))
                self.note(record)

    def known(self, record: TrialRecord) -> TrialRecord:
        """Return a trial of an earlier chain with what this search wants to know of it.

        Raises:
            LogMismatchError: If the evaluation gave another metric than this search optimises.
        """
        columns = dict(record.columns)
        for profiler in self.search.columns:
            if profiler.name not in columns:
                columns[profiler.name] = float(self.context.profile(profiler, self.candidate(record))[0])
        record = attrs.evolve(record, columns=columns)
        missing = [objective.name for objective in self.search.objectives if objective.name not in record.values]
        if missing and record.status is Status.COMPLETED:
            raise LogMismatchError(
                f"trial {record.number} of {self.log.path} has the metrics {sorted(record.values)}, and this search "
                f"optimises {missing}; log it to another file"
            )
        return record

    def check_description(self, logged: dict[str, Any]) -> None:
        """Compare the chain with the one that wrote the log."""
        now = json.loads(json.dumps(self.search.describe()))
        for key, value in now.items():
            if logged.get(key) != value:
                raise LogMismatchError(
                    f"{self.log.path} was written by a run with other {key}: it has {_text(logged.get(key))}, "
                    f"this run has {_text(value)}. Undo the change, log to another file, or pass resume='warm' to "
                    "keep the trials and go on from a fresh state that has been told them"
                )

    def without_tail(self, events: list[Event]) -> list[Event]:
        """Take back what was told after the last ask, so that a run that goes on for longer asks first.

        The end of a run tells all that is open. One that was never to end there would have asked in between.
        """
        last = max((place for place, event in enumerate(events) if event.kind in ("ask", "dry")), default=-1)
        if self.search.order == "finished" or last < 0:
            return events
        self.log.take_back_tells(events[last].seq)
        return events[: last + 1]

    def replay(self, events: Iterable[Event]) -> None:
        """Ask and tell the chain again what the log says, and compare."""
        for event in events:
            if event.kind in ("ask", "dry"):
                candidate, trace = self.ask_stages()
                logged = None if event.number is None else self.records[event.number]
                self.compare(logged, candidate, event, trace)
                if logged is None:
                    self.dry = True
                else:
                    candidate = candidate.with_columns({name: [value] for name, value in logged.columns.items()})
                    self.open[logged.number] = _Open(candidate, logged, finished=logged.status is not None)
            elif event.kind == "tell" and event.number is not None:
                self.tell_stages(event.number)
        for number, opened in self.open.items():
            if opened.finished:
                self.arrived.append(number)
            else:
                self.queue.append(number)

    def compare(self, logged: TrialRecord | None, candidate: Candidates, event: Event, trace: dict[str, Any]) -> None:
        """Stop where the chain asks something else than the log says; name trial and stage."""
        asked = candidate.codes.tobytes() if len(candidate) else None
        if (logged.codes if logged else None) == asked and event.data == trace:
            return
        stages = self.search.strategy.stages
        names = [stage.context.stage for stage in stages]
        differing = [
            name
            for name, now, then in zip(names[1:], _turned_away(trace), _turned_away(event.data), strict=False)
            if now != then
        ]
        stage = differing[0] if differing and trace["first"] == event.data["first"] else names[0]
        where = f"trial {logged.number}" if logged else f"an ask after trial {self.asked - 1} that gave nothing"
        raise LogMismatchError(
            f"replaying {self.log.path} took another course at {where}, in stage {stage}: the log has "
            f"{logged.architecture if logged else None}, the chain asked {next(iter(candidate), None)}. "
            "Was code edited, or is this another version of a library? Undo that, or pass resume='warm' to keep the "
            "trials and go on from a fresh state that has been told them"
        )

    # -- the loop -----------------------------------------------------------------------------------------------

    def loop(self, bar: tqdm[Any]) -> str:
        """Run until the budget is spent or the chain ends; return why, where it was the chain or the clock."""
        executor = self.search.executor
        deadline = time.monotonic() + self.seconds
        while True:
            while self.may_ask(executor) and time.monotonic() < deadline:
                self.ask()
                self.submit(executor, deadline)
            self.submit(executor, deadline)
            if (finished := self.next_to_tell()) is not None:
                self.tell(finished, bar)
                continue
            if self.running:
                self.log.commit_now_and_then(self.context.funnel)
                left = deadline - time.monotonic()
                self.arrive_all(executor.wait(left if 0.0 < left < math.inf else None))
                continue
            ended = ""
            if self.queue or self.may_ask(executor):
                ended = f"{self.seconds:g} seconds have passed"
            elif self.dry and self.asked < self.trials:
                if not self.search.strategy.exhausted:
                    raise DeadlockError(self.deadlock())
                ended = self.search.strategy.message
                if ended:
                    logger.warning("the search ended after %d trials: %s", self.asked, ended)
                ended = ended or "the strategy is exhausted: it has nothing more to propose"
            self.log.event("end", None, {"reason": ended, "trials": self.asked})
            self.log.commit(self.context.funnel)
            return ended

    def submit(self, executor: Executor, deadline: float) -> None:
        """Hand trials that were asked to workers that are free."""
        while self.queue and executor.free and time.monotonic() < deadline:
            executor.submit(self.task(self.queue.popleft()))
            self.running += 1

    def may_ask(self, executor: Executor) -> bool:
        """Return whether the window, or the executor, has room for another trial."""
        if self.dry or self.asked >= self.trials:
            return False
        if self.search.order == "asked":
            return len(self.open) < self.search.window
        return executor.free > len(self.queue) and len(self.open) < self.search.window

    def next_to_tell(self) -> int | None:
        """Return the trial that is to be told next, if its result is there."""
        if self.search.order == "finished":
            return self.arrived.popleft() if self.arrived else None
        first = next(iter(self.open), None)
        return first if first is not None and self.open[first].finished else None

    def ask(self) -> None:
        """Ask for one candidate, and log it."""
        candidate, trace = self.ask_stages()
        if not len(candidate):
            self.dry = True
            self.log.event("dry", None, trace)
            return
        for profiler in self.search.columns:
            if profiler.name not in candidate.columns:
                candidate = candidate.with_columns({profiler.name: self.context.profile(profiler, candidate)})
        number = self.asked
        record = TrialRecord(
            number,
            self.search.space.decode(candidate.codes[0]),
            candidate.codes.tobytes(),
            int(candidate.ids[0]),
            {name: float(values[0]) for name, values in candidate.columns.items()},
        )
        self.asked += 1
        self.records[number] = record
        self.open[number] = _Open(candidate, record)
        self.queue.append(number)
        self.log.asked(record, trace)

    def ask_stages(self) -> tuple[Candidates, dict[str, Any]]:
        """Ask the chain for one candidate; return it with what each stage gave, for the comparison on replay."""
        stages = self.search.strategy.stages
        candidate = self.search.strategy.ask(1)
        return candidate, {"given": [stage.given for stage in stages], "first": stages[0].take_first()}

    def task(self, number: int) -> Task:
        """Return what a worker needs to know of a trial."""
        digest = hashlib.sha256(f"{self.search.seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1
        record = self.records[number]
        origin = record.columns.get(RESUME_FROM, math.nan)
        resume_from = None if math.isnan(origin) else int(origin)
        return Task(
            number,
            record.architecture,
            seed,
            self.folder,
            record.columns.get(BUDGET),
            resume_from,
            _by_step(record.columns, STOP_BELOW),
            _by_step(record.columns, STOP_ABOVE),
        )

    def arrive_all(self, results: Iterable[TaskResult]) -> None:
        """Log results; one that cannot be used ends the run, but loses none of the others."""
        refused: EvaluationError | None = None
        for result in results:
            try:
                self.arrive(result)
            except EvaluationError as error:
                refused = refused or error
        if refused is not None:
            raise refused

    def arrive(self, result: TaskResult) -> None:
        """Log a result as soon as it is there."""
        self.running -= 1
        opened = self.open[result.number]
        metrics = dict(result.metrics or {})
        if result.status is Status.COMPLETED:
            metrics = self.named(metrics, opened.record)
        elif result.status is Status.FAILED and not self.failures:
            logger.warning("trial %d failed: %s\n%s", result.number, result.reason, result.traceback)
        self.failures += result.status is Status.FAILED
        asked = opened.record
        opened.record = TrialRecord(
            asked.number,
            asked.architecture,
            asked.codes,
            asked.candidate,
            asked.columns,
            result.status,
            metrics,
            result.reason,
            result.traceback,
            result.reports,
            result.started,
            result.seconds,
        )
        opened.finished = True
        self.records[result.number] = opened.record
        self.log.finished(opened.record)
        self.arrived.append(result.number)

    def named(self, metrics: dict[str, float], record: TrialRecord) -> dict[str, float]:
        """Give a single number the name of the objective, and check that every objective has its metric."""
        wanted = [objective.name for objective in self.search.objectives if objective.profiler is None]
        if set(metrics) == {""}:
            if len(wanted) != 1:
                which = f"with the objectives {wanted}" if wanted else "that names its metric, which is no objective"
                raise EvaluationError(f"evaluate must return a dict {which}; got a number")
            metrics = {wanted[0]: metrics[""]}
        if missing := [name for name in wanted if name not in metrics]:
            raise EvaluationError(
                f"evaluate returned the metrics {sorted(metrics)}, which lack {missing}; return them too, or name "
                "what is to be optimised: Search(..., objectives='...')"
            )
        if clash := sorted(metrics.keys() & record.columns.keys()):
            raise EvaluationError(
                f"evaluate returned the metrics {clash}, which are names of profilers or scorers in this search; "
                "rename one of them, so that predicted and measured values stay apart"
            )
        return metrics

    def tell(self, number: int, bar: tqdm[Any]) -> None:
        """Log that a trial is told, and tell it."""
        self.log.event("tell", number)
        self.tell_stages(number)
        bar.update()
        self.show(bar)

    def tell_stages(self, number: int) -> None:
        """Tell the chain of a finished trial."""
        opened = self.open.pop(number)
        self.dry = False
        self.search.strategy.tell(self.outcome(opened.candidate, opened.record))
        self.note(opened.record)

    # -- small things -------------------------------------------------------------------------------------------

    def candidate(self, record: TrialRecord) -> Candidates:
        """Return a trial as a candidate, for a chain that never asked it."""
        codes = np.frombuffer(record.codes, dtype=self.search.space.dtype)[None, :]
        return Candidates.of(self.search.space, codes, {name: [value] for name, value in record.columns.items()})

    def outcome(self, candidate: Candidates, record: TrialRecord) -> Outcomes:
        """Return the outcome of a finished trial."""
        assert record.status is not None
        if BUDGET in candidate.columns:
            candidate = candidate.with_columns({TRIAL: [record.number]})
        values = record.values if record.status is Status.COMPLETED else self.values_when_stopped(record)
        scores = np.array(
            [[objective.score(values.get(objective.name, math.nan)) for objective in self.search.objectives]]
        )
        metrics = {name: np.array([value]) for name, value in record.metrics.items()}
        return Outcomes(candidate, (record.status,), scores, metrics, (record.reason,), (record.reports,))

    def values_when_stopped(self, record: TrialRecord) -> dict[str, float]:
        """Return what is known of a trial that was stopped: what it reported last stands for its metric."""
        measured = [objective.name for objective in self.search.objectives if objective.profiler is None]
        if record.status is not Status.STOPPED or not record.reports or len(measured) != 1:
            return {}
        return {**record.columns, measured[0]: record.reports[-1][1]}

    def note(self, record: TrialRecord) -> None:
        """Keep the best score for the progress bar."""
        objective = self.search.objectives[0]
        if record.status is Status.COMPLETED:
            self.best = max(objective.score(record.values[objective.name]), self.best, key=_nan_least)

    def progress_bar(self) -> tqdm[Any]:
        """Return the progress bar, with what is told already."""
        shown = None if self.search.progress is None else not self.search.progress
        total = None if math.isinf(self.trials) else int(self.trials)
        told = self.asked - len(self.open)
        return tqdm(total=total, initial=told, disable=shown, unit="trial", desc=self.search.space.name)

    def show(self, bar: tqdm[Any]) -> None:
        """Show the best score and who turned away how many."""
        if bar.disable:
            return
        away: dict[str, int] = {}
        for (stage, _, _), number in self.context.funnel.counts.items():
            away[stage] = away.get(stage, 0) + number
        objective = self.search.objectives[0]
        parts = {objective.name: f"{objective.score(self.best):.4g}", **{stage: f"-{n}" for stage, n in away.items()}}
        if self.failures:
            parts["failed"] = str(self.failures)
        bar.set_postfix(parts, refresh=False)

    def deadlock(self) -> str:
        """Say which stage holds everything up."""
        stages = self.search.strategy.stages
        waiting = ", ".join(f"{stage.context.stage} waits for {stage.pending}" for stage in stages)
        holder = next((s for s, below in zip(stages[1:], stages, strict=False) if below.pending > s.pending), stages[0])
        return (
            f"stage {holder.context.stage} gives no candidate although nothing is pending that could change that "
            f"(outcomes that stages wait for: {waiting}); it must give one, or say that it is exhausted"
        )


def _nan_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _turned_away(trace: dict[str, Any]) -> list[int]:
    return [below - own for below, own in itertools.pairwise(trace["given"])]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else repr(value)


def _difference(choices: str | None, space: Space) -> str:
    """Say what differs between a logged space and this one."""
    logged = {choice["name"]: choice for choice in json.loads(choices or "[]")}
    now = {choice["name"]: choice for choice in space.describe()}
    if gone := logged.keys() ^ now.keys():
        return f"choices that only one of them has: {', '.join(sorted(gone)[:4])}"
    changed = [name for name in now if now[name] != logged[name]]
    return f"other options or conditions: {', '.join(changed[:4])}" if changed else "another order of choices"


def _check_lasting(space: Space) -> None:
    """Refuse options that a log could not recognise in another process."""
    for choice in space.choices:
        for option in choice.options:
            if " at 0x" in repr(option):
                raise SpaceError(
                    f"choice {choice.name!r} has the option {option!r}, whose text is another one in each process, so "
                    "that no log can be gone on with; use a name for it, and look the name up in `build`"
                )


def _by_step(columns: Mapping[str, float], prefix: str) -> dict[int, float]:
    """Return the columns whose names are a prefix and the number of a step, by step."""
    return {
        int(name.removeprefix(prefix)): value
        for name, value in columns.items()
        if name.startswith(prefix) and not math.isnan(value)
    }
