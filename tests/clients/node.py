"""Programs on Node.js, with the packages that tests/clients/node/package.json pins."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from tests import npm

SOURCE = Path(__file__).parent / "node"
PLACE = Path(__file__).parents[2] / "build" / "node"


@cache
def node_modules(source: Path = SOURCE, place: Path = PLACE) -> Path:
    """The directory with the packages, installed where they are not yet. Skips without Node.js and npm."""
    modules = npm.installed(source, place)
    if modules is None:
        pytest.skip(npm.MISSING)
    return modules


def run(script: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> str:
    """What a script prints."""
    modules = node_modules()
    node = shutil.which("node")
    assert node is not None
    # Packages are looked for beside the script: it runs from a copy beside them.
    copy = modules.parent / script.name
    shutil.copyfile(script, copy)
    done = subprocess.run(  # noqa: S603 - our own script
        [node, str(copy), *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
