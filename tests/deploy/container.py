"""A node to install on: a Debian tree with a real systemd in it, booted by systemd-nspawn.

Its network is its own loopback, so that the product's real ports are free in it. Needs root, systemd-container and
debootstrap; the tree and the wheels are kept in build/deploy for the next run.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "deploy"
BOOT_TIMEOUT_S = 90.0
_WANTS_TO_BOOT_AGAIN = 133
RUN_TIMEOUT_S = 600.0
PACKAGES = "systemd-sysv,dbus,python3-venv,mosquitto,mosquitto-clients,openssl,ca-certificates,procps"
_ENVIRONMENT = ("PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8")


def debian_tree() -> Path:
    """A Debian 12 with what the node has before the installation; made once."""
    tree = BUILD / "tree"
    if not (tree / "complete").exists():
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(tree)])
        (tree / "etc" / "hosts").write_text("127.0.0.1 localhost lucidia\n", encoding="ascii")
        (tree / "etc" / "hostname").write_text("lucidia\n", encoding="ascii")
        (tree / "complete").touch()
    return tree


def wheels() -> Path:
    """The pinned packages for this machine, as a node without internet gets them; their hashes are checked."""
    folder = BUILD / "wheels"
    requirements = ROOT / "deploy" / "requirements.txt"
    stamp = folder / requirements.name
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _run([*pip, "--require-hashes", "--only-binary", ":all:", "--dest", str(folder), "-r", str(requirements)])
        shutil.copy(requirements, stamp)
    return folder


def checkout(target: Path) -> None:
    """The files of this project, as a person would have them on the node."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - the git of the path
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


class Node:
    """A copy of the tree, booted; what was written to it goes with it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._log = directory / "console.log"
        self._machine: subprocess.Popen[bytes] | None = None
        self._bus: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        _run(["cp", "-a", "--reflink=auto", str(debian_tree()), str(self.root)])
        self._start_bus()
        self._boot()
        return self

    def _boot(self) -> None:
        # What systemd-nspawn needs to know of the machine's control groups: hybrid ones cannot be made unified inside.
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        environment = {**os.environ, **({} if unified else {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"})}
        command = ["systemd-nspawn", "--quiet", "--directory", str(self.root), "--register=no", "--keep-unit"]
        with self._log.open("ab") as log:
            self._machine = subprocess.Popen(  # noqa: S603 - our own arguments
                [*command, "--private-network", "--boot"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        until(self._booted, BOOT_TIMEOUT_S, say=lambda: self._log.read_text(errors="replace")[-2000:])

    def __exit__(self, *_: object) -> None:
        if self._machine is not None:
            with contextlib.suppress(Exception):
                self.run("systemctl", "poweroff", check=False)
                self._machine.wait(30)
            self._machine.kill()
            self._machine.wait()
        if self._bus is not None:
            self._bus.kill()
            self._bus.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, *command: str, check: bool = True, timeout_s: float = RUN_TIMEOUT_S, say: str = "") -> str:
        """Run a command on the node as root; what it printed, standard error included."""
        done = subprocess.run(  # noqa: S603 - our own arguments
            ["nsenter", "-t", str(self._leader()), "-m", "-u", "-i", "-n", "-p", "env", "-i", *_ENVIRONMENT, *command],  # noqa: S607 - of util-linux
            input=say.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{text}"
        return text

    def succeeds(self, *command: str) -> bool:
        """True if the command ends well."""
        try:
            self.run(*command)
        except AssertionError:
            return False
        return True

    def reboot(self) -> None:
        """Restart the node; returns once every unit of the boot has been started."""
        assert self._machine is not None
        self.run("systemctl", "reboot", check=False)
        # Without a unit of its own systemd-nspawn leaves it to its caller to boot again.
        assert self._machine.wait(BOOT_TIMEOUT_S) == _WANTS_TO_BOOT_AGAIN
        self._boot()

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str, lines: int = 40) -> str:
        """The end of a unit's log."""
        return self.run(
            "journalctl", "--unit", unit, "--lines", str(lines), "--no-pager", "--output", "cat", check=False
        )

    def put(self, path: str, text: str) -> None:
        """Write a file on the node."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def _booted(self) -> bool:
        try:
            state = self.run("systemctl", "is-system-running", check=False, timeout_s=20).strip()
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            return False
        return state in ("running", "degraded")

    def _leader(self) -> int:
        """The node's first process, seen from here."""
        assert self._machine is not None
        assert self._machine.poll() is None, self._log.read_text(errors="replace")[-2000:]
        task = Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children")
        children = task.read_text(encoding="ascii").split()
        assert children, "it has no first process yet"
        return int(children[0])

    def _start_bus(self) -> None:
        """systemd-nspawn asks the machine's bus; start one where there is none."""
        socket = Path("/run/dbus/system_bus_socket")
        if socket.exists() and subprocess.run(["pgrep", "-x", "dbus-daemon"], check=False, capture_output=True).stdout:  # noqa: S607
            return
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        self._bus = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"])  # noqa: S607
        until(socket.exists)


def _run(command: Sequence[str]) -> None:
    began_s = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - our own arguments
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command[0]} failed after {time.monotonic() - began_s:.0f} s:\n{output[-3000:]}"
