"""A device's process: what it answers, and what becomes of one that crashes, hangs or answers rubbish."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scripted import ScriptedDevice, script

from nasmw.devices import Session
from nasmw.devices import session as session_module
from nasmw.errors import DeviceError

QUICK = script("sum(range(1000))")


@pytest.fixture
def session() -> Iterator[Session]:
    with ScriptedDevice().open() as opened:
        yield opened


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


# -- what it answers ----------------------------------------------------------------------------------------------


def test_each_run_is_timed_by_the_clock_and_by_processor_time(session: Session) -> None:
    session.prepare("sleeps", script("time.sleep(0.01)"))
    session.prepare("computes", script("sum(range(200_000))"))
    sleeps, computes = session.measure("sleeps", runs=3, warmup=0), session.measure("computes", runs=4)
    assert sleeps.wall_ms.shape == sleeps.cpu_ms.shape == (3,)
    assert computes.wall_ms.shape == (4,)
    assert (sleeps.wall_ms >= 10).all()
    assert (sleeps.cpu_ms < 5).all()
    assert (computes.cpu_ms > 0.2).all()


def test_warm_up_runs_are_not_timed(session: Session) -> None:
    session.prepare(
        "first is slow", script("time.sleep(0 if os.environ.get('SEEN') else 0.2); os.environ['SEEN'] = '1'")
    )
    assert (session.measure("first is slow", runs=2, warmup=1).wall_ms < 100).all()


def test_describes_machine_and_runtime(session: Session) -> None:
    about = session.describe()
    assert (about["runtime"], about["version"], about["precision"], about["threads"]) == ("scripted", "1", "fp32", 1)
    assert about["python"] == sys.version.split()[0]
    assert about["cpu"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_process_is_pinned_to_a_core() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    with ScriptedDevice().open() as last, ScriptedDevice(core=allowed[0]).open() as first:
        assert last.describe()["affinity"] == last.describe()["cores"] == [allowed[-1]]
        assert first.describe()["affinity"] == [allowed[0]]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_core_that_is_not_there_is_named() -> None:
    with ScriptedDevice(core=4096).open() as session:
        with pytest.raises(DeviceError, match=r"(?s)ended with exit code 1.*cannot run on the cores \[4096\]"):
            session.describe()


def test_arrays_travel_both_ways(session: Session) -> None:
    session.prepare("doubles", QUICK)
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    (doubled,) = session.infer("doubles", given)
    np.testing.assert_array_equal(doubled, 2 * given)
    assert doubled.dtype == np.float32


def test_what_a_network_prints_is_no_answer(session: Session) -> None:
    session.prepare("prints", script("print('rubbish'); os.write(1, b'more rubbish')"))
    assert session.measure("prints", runs=2).wall_ms.shape == (2,)


def test_unknown_network_is_an_error_of_this_side(session: Session) -> None:
    with pytest.raises(KeyError, match="no network 'other' was prepared"):
        session.measure("other")


def test_forgotten_network_is_unknown(session: Session) -> None:
    session.prepare("a", QUICK)
    session.forget("a")
    with pytest.raises(KeyError, match="no network 'a' was prepared"):
        session.measure("a")


def test_numbers_of_runs_are_checked(session: Session) -> None:
    session.prepare("a", QUICK)
    with pytest.raises(ValueError, match="runs of at least 1"):
        session.measure("a", runs=0)


# -- what becomes of a bad one ------------------------------------------------------------------------------------


def test_killed_process_is_an_error_and_is_replaced(session: Session) -> None:
    session.prepare("good", QUICK)
    session.prepare("bad", script("sys.stderr.write('about to die\\n'); sys.stderr.flush(); os.kill(os.getpid(), 9)"))
    with pytest.raises(
        DeviceError, match=r"(?s)was ended by signal 9 \(SIGKILL, out of memory\?\) while it was to mea.*about to die"
    ):
        session.measure("bad")
    assert session.measure("good", runs=2).wall_ms.shape == (2,)


def test_crash_in_native_code_shows_where(session: Session) -> None:
    session.prepare("bad", script("import ctypes; ctypes.string_at(0)"))
    with pytest.raises(DeviceError, match=r"(?s)SIGSEGV.*Segmentation fault"):
        session.measure("bad")


def test_hang_is_ended_and_shows_where() -> None:
    with ScriptedDevice(timeout=1.0).open() as session:
        session.prepare("good", QUICK)
        session.prepare("bad", script("time.sleep(1000)"))
        begin = time.monotonic()
        with pytest.raises(DeviceError, match=r"(?s)did not measure within 1 s and was ended.*in timed"):
            session.measure("bad")
        assert time.monotonic() - begin < 30
        assert session.measure("good", runs=2).wall_ms.shape == (2,)


def test_process_that_cannot_even_say_that_it_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session_module, "GRACE", 0.5)
    python = executable(tmp_path / "python", "#!/bin/sh\nexec sleep 1000\n")
    with ScriptedDevice(timeout=0.5, python=python).open() as session:
        with pytest.raises(
            DeviceError, match="did not describe within 0.5 s and was ended. Nothing stands on its standa"
        ):
            session.describe()


@pytest.mark.parametrize(
    "answer",
    ["Welcome to this machine", '{"id": 7, "ok": true, "about": {}}', "[1]", '{"id": 1, "ok": "yes"}', "\\0377\\0376"],
)
def test_rubbish_is_an_error_that_shows_it(answer: str, tmp_path: Path) -> None:
    python = executable(
        tmp_path / "python", f"#!/bin/sh\nread line\necho help >&2\nprintf '%b\\n' '{answer}'\nexec cat >/dev/null\n"
    )
    with ScriptedDevice(python=python).open() as session:
        with pytest.raises(
            DeviceError, match=r"(?s)answered rubbish to 'describe': .*Its standard error ends with:\nhelp"
        ):
            session.describe()


@pytest.mark.parametrize(
    "times", ["[1.0]", "[1.0, NaN]", "[1.0, -1.0]", "[0.0, 1.0]", "[1.0, Infinity]", "null", '["1", "2"]']
)
def test_times_that_are_none_never_become_numbers(
    times: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.prepare("a", QUICK)

    def answer(process: object, line: bytes) -> bytes:
        return f'{{"id": {session._requests}, "ok": true, "wall_ms": {times}, "cpu_ms": [1.0, 1.0]}}\n'.encode()

    monkeypatch.setattr(session, "_exchange", answer)
    with pytest.raises(DeviceError, match="gave no 2 times in milliseconds"):
        session.measure("a", runs=2)


def test_network_that_does_not_load_shows_the_traceback_and_ends_nothing(session: Session) -> None:
    session.prepare("good", QUICK)
    process = session._process
    with pytest.raises(DeviceError, match=r"(?s)failed to prepare:\nTraceback.*ValueError: no such layer"):
        session.prepare("bad", script("pass", load="raise ValueError('no such layer')"))
    session.measure("good", runs=1)
    assert session._process is process
    with pytest.raises(KeyError):
        session.measure("bad")


def test_interpreter_that_is_not_there_is_named() -> None:
    with ScriptedDevice(python="no-such-python").open() as session:
        with pytest.raises(DeviceError, match=r"does not start: no-such-python"):
            session.describe()


def test_nothing_is_left_behind(session: Session) -> None:
    session.prepare("a", QUICK)
    assert session._process is not None
    pid = session._process.pid
    session.close()
    assert not is_running(pid)
    assert session.measure("a", runs=1).wall_ms.shape == (1,)


def test_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from scripted import ScriptedDevice\n"
        "session = ScriptedDevice().open(); session.describe(); print(session._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True)
    pid = int(done.stdout)
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


# -- elsewhere ----------------------------------------------------------------------------------------------------


def test_another_environment_needs_nothing_of_nasmw(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    with ScriptedDevice(python=str(tmp_path / "env/bin/python")).open() as session:
        session.prepare("a", script("import sys; assert 'numpy' not in sys.modules and 'nasmw' not in sys.modules"))
        assert session.measure("a", runs=3).wall_ms.shape == (3,)


def test_another_host_is_reached_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    executable(tmp_path / "ssh", f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\nfor last; do :; done\nexec sh -c "$last"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    device = ScriptedDevice(host="pi@kitchen", python=sys.executable)
    assert device.name == "scripted-fp32@kitchen"
    with device.open() as session:
        session.prepare("a", QUICK)
        assert session.measure("a", runs=3).wall_ms.shape == (3,)
    assert seen.read_text().splitlines()[:5] == ["-T", "-o", "BatchMode=yes", "--", "pi@kitchen"]


def test_host_that_is_not_reached_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "ssh", "#!/bin/sh\necho 'ssh: Could not resolve hostname kitchen' >&2\nexit 255\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with ScriptedDevice(host="kitchen").open() as session:
        with pytest.raises(
            DeviceError, match=r"(?s)ended with exit code 255 while it was to describe.*Could not resolve"
        ):
            session.describe()


@pytest.fixture
def ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of ssh on this machine, and an `ssh` that knows its port and key."""
    server = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    client, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if not (server and client and keygen):
        pytest.skip("needs sshd, ssh and ssh-keygen")
    for name in ("host_key", "user_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\n"
        f"HostKey {tmp_path}/host_key\nAuthorizedKeysFile {tmp_path}/user_key.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
    )
    (tmp_path / "ssh_config").write_text(
        f"Host loopback\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {tmp_path}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {tmp_path}/known\n  StrictHostKeyChecking no\n  LogLevel ERROR\n"
    )
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin/ssh", f'#!/bin/sh\nexec {client} -F {tmp_path}/ssh_config "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which the server asks of root
    process = subprocess.Popen([server, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(50):
            probe = subprocess.run(
                [tmp_path / "bin/ssh", "-o", "BatchMode=yes", "loopback", "true"], capture_output=True
            )
            if probe.returncode == 0:
                break
            time.sleep(0.1)
        else:
            process.terminate()
            pytest.skip(f"no server of ssh can be started here: {process.communicate()[1][-300:]}")
        yield "loopback"
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_over_a_real_server_of_ssh(ssh_server: str) -> None:
    with ScriptedDevice(host=ssh_server, python=sys.executable, timeout=2.0).open() as session:
        session.prepare("good", QUICK)
        session.prepare("prints", script("print('rubbish')"))
        session.prepare("bad", script("time.sleep(1000)"))
        assert session.measure("good", runs=3).wall_ms.shape == (3,)
        assert session.measure("prints", runs=3).wall_ms.shape == (3,)
        with pytest.raises(DeviceError, match=r"(?s)did not measure within 2 s.*in timed"):
            session.measure("bad")
        assert session.measure("good", runs=3).wall_ms.shape == (3,)
