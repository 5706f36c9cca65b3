"""What keeps a node right over years: its clock's source, its backups, what is installed on it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from connector.doctor.findings import Finding, listed
from connector.store.backup import backups, taken_ms
from connector.store.checks import sqlite_version

# The timer makes one every night; two that are missing are a reason to look.
BACKUP_MAX_AGE_MS = 2 * 24 * 3600 * 1000
_ASK_TIMEOUT_S = 5.0
_LIBRARIES = ("aiohttp", "aiosfstream-ng", "paho-mqtt", "simple-salesforce")


def time_source(ask: Callable[[], str | None] | None = None) -> Finding:
    """Is the clock kept right by a time server? A right clock of today says nothing of next month.

    Args:
        ask: Answers "yes", "no", or None where nobody can tell; None: ask systemd.
    """
    told = (ask or _synchronised)()
    if told == "yes":
        return Finding("timesync", "ok", "the clock follows a time server")
    if told == "no":
        return Finding("timesync", "warn", "the clock follows no time server", "timedatectl set-ntp true")
    return Finding("timesync", "ok", "nobody here tells whether the clock follows a time server")


def backup_age(replica: Path, folder: Path, now_ms: int) -> Finding:
    """Is there a young backup of a replica that is there?"""
    mend = "salesforce-sync backup, and on a node: systemctl enable --now salesforce-sync-backup.timer"
    if not replica.exists():
        return Finding("backup", "ok", "there is nothing to back up yet")
    found = backups(folder)
    if not found:
        return Finding("backup", "warn", f"no backup in {folder}", mend)
    age_h = max(0, now_ms - taken_ms(found[-1])) / 3_600_000
    message = f"{len(found)} in {folder}, the newest {age_h:.0f} h old"
    late = now_ms - taken_ms(found[-1]) > BACKUP_MAX_AGE_MS
    return Finding("backup", "warn", message, mend) if late else Finding("backup", "ok", message)


def versions() -> Finding:
    """What is installed, for whoever is asked for help."""
    python = ".".join(map(str, sys.version_info[:3]))
    libraries = listed(f"{name} {version(name)}" for name in _LIBRARIES)
    ours = f"salesforce-sync {version('salesforce-sync')}"
    return Finding("versions", "ok", f"{ours}, Python {python}, SQLite {sqlite_version()}, {libraries}")


def _synchronised() -> str | None:
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - found in the path, our own arguments
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
