"""Programs on Node.js, with the packages that tests/clients/node/package.json pins."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "node"
PLACE = Path(__file__).parents[2] / "build" / "node"


@cache
def node_modules(source: Path = SOURCE, place: Path = PLACE) -> Path:
    """The directory with the packages, installed where they are not yet. Skips without Node.js and npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js and npm are not installed: apt-get install nodejs npm")
    wanted = (source / "package.json").read_bytes()
    done = place / "package.json"
    if not (done.exists() and done.read_bytes() == wanted and (place / "node_modules").is_dir()):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        words = [
            npm,
            "install",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(place),
        ]
        (place / "wanted.json").write_bytes(wanted)
        (place / "wanted.json").rename(done)
        installed = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - npm
        if installed.returncode != 0:
            done.unlink()
            raise AssertionError(installed.stderr)
    return place / "node_modules"


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
