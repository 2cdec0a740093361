"""The command line: ``python -m nasmw show run.db``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nasmw.errors import NasmwError
from nasmw.log import TrialRecord
from nasmw.result import Result, load

__all__ = ["main", "show"]


def show(result: Result) -> str:
    """Return a report of a result: the funnel, the best trial, the Pareto front."""
    parts = [repr(result)]
    if result.ended:
        parts.append(f"ended early: {result.ended}")
    parts.append(f"The funnel\n\n{_indent(str(result.funnel))}")
    if not result.completed:
        failed = [trial.reason for trial in result.trials if trial.reason]
        parts.append(f"No trial is completed{f'; the last failure: {failed[-1]}' if failed else ''}")
        return "\n\n".join(parts)
    best = result.best
    choices = "\n".join(f"{name:<28} {option}" for name, option in best.architecture.items())
    parts.append(f"The best: {_line(best)}\n\n{_indent(choices)}")
    columns = dict.fromkeys(name for trial in result.completed for name in trial.columns)
    others = [name for name in columns if name not in {objective.name for objective in result.objectives}]
    front = result.pareto(*result.objectives, *others)
    title = ", ".join(map(str, [*result.objectives, *(f"minimize {name}" for name in others)]))
    parts.append(f"The Pareto front ({title})\n\n{_indent(chr(10).join(_line(trial) for trial in front))}")
    return "\n\n".join(parts)


def _line(trial: TrialRecord) -> str:
    return f"trial {trial.number:>5}  " + "  ".join(f"{name} {value:.6g}" for name, value in trial.values.items())


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nasmw", description="Look at what searches found.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("show", help="print the funnel, the best network and the Pareto front of a log")
    command.add_argument("log", help="the file that a search wrote")
    given = parser.parse_args(arguments)
    try:
        print(show(load(given.log)))
    except NasmwError as error:
        print(f"nasmw: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
