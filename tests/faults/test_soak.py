"""A short soak: what `make soak` plays for hours."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.soak import child

ROOT = Path(__file__).parents[2]
SEEDS = 25


@pytest.mark.timeout(400)
def test_25_seeds_of_random_edits_commands_and_faults() -> None:
    """Replica equal to the org, changes without holes, one effect and one answer to a command; see soak/__main__.py."""
    command = [sys.executable, "-m", "tests.faults.soak", "--seeds", str(SEEDS), "--seconds", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=390)  # noqa: S603 - our own program
    told = json.loads(done.stdout or "{}")
    assert done.returncode == 0, f"{json.dumps(told.get('failures'), indent=1)[-20_000:]}\n{done.stderr[-4000:]}"
    assert told["seeds"] == SEEDS
    assert told["transactions"] > SEEDS
    assert told["commands"] > SEEDS
    assert told["in_jobs"] > 0


def test_the_constants_that_the_soak_scales_are_there() -> None:
    """Else its daemon would not start, and every seed would take minutes to say so."""
    named = {
        f"{home}.{name}" for waits in (child.WAITS, child.SHORTER) for home, names in waits.items() for name in names
    }
    named |= {f"{home}.{name}" for name, homes in child.SIZES.items() for home in homes}
    known = {
        name for name in named if hasattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
    }
    assert named - known == set()


def test_a_seed_is_the_same_plan_every_time() -> None:
    """Else a failing seed could not be played again: nothing of a plan hangs on the order of a set."""
    program = "from tests.faults.soak.plan import plan_of; print([plan_of(seed, 1.0) for seed in range(60)])"
    plans = {
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": order},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for order in ("1", "2")
    }
    assert len(plans) == 1
