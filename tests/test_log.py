"""The log: what survives, what is refused, and what it says."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nasmw import Chain, Filter, Search, Trial
from nasmw.__main__ import main
from nasmw.errors import LogError, LogInUseError, LogMismatchError
from nasmw.log import Log
from nasmw.result import load
from nasmw.strategies import Random
from nasmw.testing import TableProfiler, toy_space


def evaluate(trial: Trial) -> float:
    return random.Random(trial.seed).random()


def search(path: Path) -> Search:
    space = toy_space()
    return Search(space, Chain(Random(), Filter(TableProfiler(space) <= 50.0)), evaluate, log=path, progress=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    search(tmp_path / "run.db").run(trials=10)
    return tmp_path / "run.db"


def test_reads_back_what_was_found(path: Path) -> None:
    found = search(path).run(trials=10)
    read = load(path, toy_space())
    assert [trial.values for trial in read.trials] == [trial.values for trial in found.trials]
    assert [trial.architecture for trial in read.trials] == [trial.architecture for trial in found.trials]
    assert str(read.funnel) == str(found.funnel)
    assert read.best.number == found.best.number


def test_reads_back_without_the_space(path: Path) -> None:
    read = load(path)
    assert read.best.architecture["width"] in {"4", "8", "12", "16"}
    assert read.space.size == toy_space().size


def test_may_be_read_while_a_run_holds_it(path: Path) -> None:
    with Log(path):
        assert len(load(path).trials) == 10


def test_a_second_process_is_refused(path: Path) -> None:
    with Log(path):
        script = f"from nasmw.log import Log; Log({str(path)!r})"
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "LogInUseError" in second.stderr
    assert "is in use by process" in second.stderr
    Log(path).close()  # and free again


def test_a_killed_process_frees_it(path: Path) -> None:
    script = (
        f"import os, signal; from nasmw.log import Log; log = Log({str(path)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    Log(path).close()


def test_a_lock_ends_with_its_log(path: Path) -> None:
    first = Log(path)
    with pytest.raises(LogInUseError):
        Log(path)
    first.close()
    Log(path).close()


def test_another_space_is_refused(path: Path) -> None:
    from nasmw import Choice, Space

    with pytest.raises(LogMismatchError, match="log of another space"):
        load(path, Space([Choice("a", (1, 2))]))


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="there is no log at"):
        load(tmp_path / "none.db")
    with pytest.raises(LogError, match="the folder of the log does not exist"):
        search(tmp_path / "none" / "run.db").run(trials=1)


def test_not_a_log(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and long enough to be read as the header of one " * 20)
    with pytest.raises(LogError, match=r"not a database; the file is damaged or no log"):
        search(text).run(trials=1)
    assert text.read_text().startswith("not a database")
    with pytest.raises(LogError, match=r"not a database; the file is damaged or no log"):
        load(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    db.close()
    with pytest.raises(LogError, match="a database of something else"):
        search(other).run(trials=1)


def test_an_empty_file_is_a_new_log(tmp_path: Path) -> None:
    (tmp_path / "run.db").touch()
    with pytest.raises(LogError, match="no run has written to it yet"):
        load(tmp_path / "run.db")
    assert len(search(tmp_path / "run.db").run(trials=3).trials) == 3


def test_a_newer_format_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    db.close()
    with pytest.raises(LogError, match="log format 99; this version of nasmw reads 1"):
        search(path).run(trials=11)


def test_a_truncated_log_is_a_clear_error(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        damaged = tmp_path / f"{share}.db"
        damaged.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(LogError, match="damaged|malformed"):
            search(damaged).run(trials=11)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_an_interrupted_write_loses_its_end_only(share: float, tmp_path: Path) -> None:
    """Cut the write-ahead log anywhere, as a crash of the machine may: what is left replays."""
    path = tmp_path / "run.db"
    whole = search(path).run(trials=10)
    with Log(path) as log:  # a second run, whose pages are in the write-ahead log until the file is closed
        log.write_meta("touched", "x" * 5000)
        log.commit()
        cut = tmp_path / f"cut{share}.db"
        shutil.copy(path, cut)
        pages = Path(f"{path}-wal").read_bytes()
        Path(f"{cut}-wal").write_bytes(pages[: int(len(pages) * share)])
    again = search(cut).run(trials=10)
    assert [trial.values for trial in again.trials] == [trial.values for trial in whole.trials]


def test_a_full_disk_is_a_clear_error_and_costs_no_finished_trial(path: Path) -> None:
    before = load(path).trials

    class Full(Log):
        def _prepare(self, readonly: bool) -> None:
            super()._prepare(readonly)
            pages = self._db.execute("PRAGMA page_count").fetchone()[0]
            self._db.execute(f"PRAGMA max_page_count = {pages}")

    import nasmw.search

    original, nasmw.search.Log = nasmw.search.Log, Full  # type: ignore[misc]
    try:
        with pytest.raises(LogError, match="full; free some space and start again"):
            search(path).run(trials=5000)
    finally:
        nasmw.search.Log = original  # type: ignore[misc]
    after = load(path).trials
    assert len(after) >= len(before)
    resumed = search(path).run(trials=len(after) + 5)
    assert [trial.values for trial in resumed.trials[:10]] == [trial.values for trial in before]


def test_show_prints_funnel_best_and_front(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(path)]) == 0
    printed = capsys.readouterr().out
    best = load(path).best
    for part in ("The funnel", "cost <= 50", "trained", f"trial {best.number:>5}", "The Pareto front", "minimize cost"):
        assert part in printed


def test_show_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "none.db")]) == 1
    assert "there is no log at" in capsys.readouterr().err
