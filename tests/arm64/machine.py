"""A Pi's processor without a Pi: Debian's Python for arm64, the wheels that a node installs, under user-mode emulation.

Needs debootstrap and qemu-aarch64-static (Debian's package qemu-user-static); what is unpacked is kept in build/arm64.

Source: QEMU, "QEMU User space emulator".
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tests.deploy.container import checkout

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "arm64"
# `make wheels` downloads them and checks their hashes.
WHEELS = ROOT / "build" / "wheels-aarch64"
RUN_TIMEOUT_S = 600.0


def python() -> Path:
    """A program that is Python for arm64, with the pinned packages and this project installed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    tree, site, program = _debian(), _packages(), BUILD / "python"
    emulator = shutil.which("qemu-aarch64-static")
    program.write_text(
        "#!/bin/sh\n"
        f"export QEMU_LD_PREFIX={tree} PYTHONHOME={tree}/usr PYTHONPATH={site} PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {emulator} {tree}/usr/bin/python3 "$@"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program


def _debian() -> Path:
    """Debian 12 for arm64, unpacked and not set up: nothing of it has to run for that; made once."""
    tree = BUILD / "tree"
    if not (tree / "complete").exists():
        shutil.rmtree(tree, ignore_errors=True)
        include = "--include=python3,ca-certificates,tzdata"
        _run(["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", include, "bookworm", str(tree)])
        for package in sorted((tree / "var" / "cache" / "apt" / "archives").glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(tree)])
        (tree / "complete").touch()
    return tree


def _packages() -> Path:
    """The wheels for arm64, unpacked, and our own, built from these files."""
    site, source, built = BUILD / "site", BUILD / "source", BUILD / "built"
    for folder in (site, source, built):
        shutil.rmtree(folder, ignore_errors=True)
    checkout(source)
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(source)])
    for wheel in (*sorted(WHEELS.glob("*.whl")), *built.glob("*.whl")):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
    return site


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=RUN_TIMEOUT_S)  # noqa: S603 - our own words
