"""Many searches in worker processes, kept line by line in a file, so that an interrupted benchmark goes on."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import attrs
import numpy as np
from table_search import Run

__all__ = ["Kept", "Unit", "add_arguments", "known", "opened", "positive"]


@attrs.frozen
class Unit:
    """One search.

    Attributes:
        method: The name of what searches.
        what: How it is configured; a run of another configuration does not count.
        setting: The name of what is searched.
        seed: The seed.
        evaluations: After how many it stops.
    """

    method: str
    what: str
    setting: str
    seed: int
    evaluations: float


class Kept:
    """The runs of one benchmark, in memory and in a file.

    Args:
        path: The file, one run a line; None keeps nothing on disk. A line that a kill left unfinished is left out.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._runs: dict[Unit, Run] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        if path is not None and path.exists():
            lines = path.read_text().split("\n")
            for line in lines[:-1]:
                self._take(json.loads(line))
            if lines[-1]:
                path.write_text("\n".join([*lines[:-1], ""]))

    def _take(self, line: dict[str, object]) -> None:
        unit = Unit(**line["unit"])  # type: ignore[arg-type]
        self._runs[unit] = Run(
            np.array(line["rows"], dtype=np.intp),
            float(line["cpu_s"]),  # type: ignore[arg-type]
            int(line["proposals"]),  # type: ignore[call-overload]
            int(line["substitutes"]),  # type: ignore[call-overload]
            np.array(line["budgets"], dtype=np.float64),
            np.array(line["finished_s"], dtype=np.float64),
        )
        self._seconds[unit.method].append(float(line["wall_s"]))  # type: ignore[arg-type]

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._runs

    def __getitem__(self, unit: Unit) -> Run:
        return self._runs[unit]

    def complete(self, units: Sequence[Unit], search: Callable[[Unit], Run], processes: int) -> None:
        """Have the missing ones of some searches done; print how long that takes first.

        Args:
            units: The searches.
            search: Does one; a function of a module, so that worker processes find it.
            processes: How many of them.
        """
        missing = [unit for unit in units if unit not in self]
        timed = _Timed(search)
        first = {unit.method: unit for unit in reversed(missing) if unit.method not in self._seconds}
        rest = [unit for unit in missing if unit not in first.values()]
        with (
            open(os.devnull if self._path is None else self._path, "a") as file,
            multiprocessing.get_context("spawn").Pool(processes) as pool,
        ):
            self._note(pool.imap_unordered(timed, list(first.values())), file)
            left = sum(float(np.median(self._seconds[unit.method])) for unit in rest)
            print(
                f"{len(units)} searches, {len(units) - len(missing)} of them kept; the other {len(missing)} take about "
                f"{left / processes / 60:.1f} minutes in {processes} processes",
                file=sys.stderr,
                flush=True,
            )
            start, said = time.monotonic(), time.monotonic()
            for done, _ in enumerate(self._noted(pool.imap_unordered(timed, rest), file), start=1):
                if time.monotonic() - said > 60.0:
                    said = time.monotonic()
                    minutes = (said - start) / done * (len(rest) - done) / 60
                    print(f"{done}/{len(rest)}, about {minutes:.1f} minutes left", file=sys.stderr, flush=True)

    def _note(self, results: Iterable[dict[str, object]], file: TextIO) -> None:
        for _ in self._noted(results, file):
            pass

    def _noted(self, results: Iterable[dict[str, object]], file: TextIO) -> Iterator[None]:
        for line in results:
            file.write(json.dumps(line) + "\n")
            file.flush()
            self._take(line)
            yield


@attrs.frozen
class _Timed:
    """Does one search, and says how long it took, as a line of the file."""

    search: Callable[[Unit], Run]

    def __call__(self, unit: Unit) -> dict[str, object]:
        start = time.perf_counter()
        run = self.search(unit)
        return {
            "unit": attrs.asdict(unit),
            "rows": run.rows.tolist(),
            "budgets": run.budgets.tolist(),
            "finished_s": run.finished_s.round(3).tolist(),
            "cpu_s": round(run.cpu_s, 5),
            "proposals": run.proposals,
            "substitutes": run.substitutes,
            "wall_s": round(time.perf_counter() - start, 4),
        }


def positive(text: str) -> int:
    """Return a whole number above 0 from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return number


def add_arguments(parser: argparse.ArgumentParser, seeds: int, evaluations: int) -> None:
    """Add the arguments that all these benchmarks have."""
    parser.add_argument("--data", help="the data folder; by default what NASMW_DATA names")
    parser.add_argument("--seeds", type=positive, default=seeds, help="how many")
    parser.add_argument("--evaluations", type=positive, default=evaluations)
    parser.add_argument("--methods", nargs="*", help="names of methods; all by default")
    parser.add_argument("--processes", type=positive, default=2)
    parser.add_argument("--runs", type=Path, help="the file that keeps the runs; by default benchmarks/.runs/")


def known(argument: str, given: Sequence[str] | None, names: Iterable[str]) -> list[str]:
    """Return the names given on the command line, all where none are; end with a message where one is unknown."""
    every = list(names)
    for name in given or ():
        if name not in every:
            sys.exit(f"{argument} knows no {name!r}; it knows {', '.join(map(repr, every))}")
    return list(given or every)


def opened(given: argparse.Namespace, script: str) -> Kept:
    """Return the runs that are kept for a script, where its arguments say."""
    path = given.runs or Path(script).resolve().parent / ".runs" / f"{Path(script).stem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return Kept(path)
