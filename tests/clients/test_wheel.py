"""The wheel, installed into an environment with nothing else, does what the README shows. `make test-clients`."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SOURCES = ("connector", "pyproject.toml", "README.md", "LICENSE")


def _run(words: Sequence[str | Path], directory: Path, timeout_s: float) -> str:
    """What a program prints that knows nothing of this repository."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SF_", "SALESFORCE_"))}
    done = subprocess.run(  # noqa: S603 - pip, and what it installed
        [str(word) for word in words],
        cwd=directory,
        env=clean,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(400)  # every dependency is installed
def test_the_wheel_runs_the_demo(tmp_path: Path) -> None:
    """Built from the sources alone, with its SQL, page, grammar and descriptions in it."""
    source, empty = tmp_path / "source", tmp_path / "empty"
    source.mkdir()
    empty.mkdir()
    for name in _SOURCES:
        original = ROOT / name
        if original.is_dir():
            shutil.copytree(original, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(original, source / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], empty, 120)
    (wheel,) = tmp_path.glob("salesforce_sync-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    _run([tmp_path / "venv" / "bin" / "pip", *pip[3:], "install", f"{wheel}[pubsub]"], empty, 240)
    program = tmp_path / "venv" / "bin" / "salesforce-sync"

    assert _run([program, "--version"], empty, 30).split()[-1] == version("salesforce-sync")
    _run([program, "init"], empty, 30)
    assert (empty / "settings.toml").exists()
    _run([tmp_path / "venv" / "bin" / "python", "-c", "import connector.salesforce.pubsub"], empty, 30)
    shown = _run([program, "demo", "--seconds", "5"], empty, 90)
    assert "Every edit arrived, every command was answered, and the replica is equal to the org." in shown
