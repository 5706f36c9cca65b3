"""Packages of the npm registry, as a `package.json` pins them, in a folder that is kept for the next time."""

import shutil
import subprocess
from pathlib import Path

MISSING = "Node.js and npm are not installed: apt-get install nodejs npm"


def installed(source: Path, place: Path) -> Path | None:
    """The directory with the packages of `source`, installed where they are not yet; None without Node.js and npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    wanted = (source / "package.json").read_bytes()
    done = place / "package.json"
    if not (done.exists() and done.read_bytes() == wanted and (place / "node_modules").is_dir()):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        options = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
        words = [npm, "install", *options, "--prefix", str(place)]
        (place / "wanted.json").write_bytes(wanted)
        (place / "wanted.json").rename(done)
        ran = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - npm
        if ran.returncode != 0:
            done.unlink()
            raise AssertionError(ran.stderr)
    return place / "node_modules"
