"""A short soak: what `make soak` plays for hours. By itself: `pytest -m soak tests/faults/test_soak.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = 25


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_25_seeds_of_random_edits_commands_and_faults() -> None:
    """Replica equal to the org, changes without holes, one effect and one answer to a command; see soak/__main__.py."""
    command = [sys.executable, "-m", "tests.faults.soak", "--seeds", str(SEEDS), "--seconds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=390)  # noqa: S603 - our own program
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-4000:]}"
