"""Programs of PyPI, as a file of requirements pins them, in an environment that is kept for the next time."""

import shutil
import subprocess
import sys
from pathlib import Path

MISSING = "its packages cannot be installed from PyPI"
_TIMEOUT_S = 280.0


def installed(source: Path, place: Path) -> Path | None:
    """The folder with the programs of `source`, installed where they are not yet; None where they cannot be."""
    done = place / "requirements.txt"
    if not (done.exists() and done.read_bytes() == source.read_bytes()):
        shutil.rmtree(place, ignore_errors=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for words in ([sys.executable, "-m", "venv", str(place)], [*pip, "-r", str(source)]):
            try:
                subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603 - pip
            except subprocess.SubprocessError as error:
                sys.stderr.write(f"{error}\n{getattr(error, 'stderr', None) or ''}")
                return None
        shutil.copyfile(source, done)
    return place / "bin"
