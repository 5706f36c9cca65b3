"""A small file beside the replica that says: read whole, then closed, and nobody has touched it since.

It tells the file by its inode, size and times. Whoever writes to a file moves `ctime`, which no program can set, so a
copy, a restored backup, an edit and a damage done by other means never fit, whatever clock they were made by; nor does
a file with something in its WAL. What moves nothing, a disk that loses what it held, is found by reading later.

The seal need not reach the disk: without it, or with a part of it, the file is read whole. That it is *broken* must be
on the disk before the first write, since after a power cut it is all that tells a file closed from one left open.

Source: stat(2), rename(2), fsync(2).
"""

import contextlib
import os
from pathlib import Path

from connector.errors import StoreUnusable

_SUFFIX = ".seal"
_MOST_BYTES = 200


def sealed(path: Path) -> bool:
    """True if the file is as it was when it was sealed."""
    try:
        if not _of(path).is_file():
            return False
        with _of(path).open("rb") as file:
            told = file.read(_MOST_BYTES)
        return told == _told_of(path) and _wal_empty(path)
    except OSError:
        return False


def seal(path: Path) -> None:
    """Seal a file that was read whole and is closed; without effect where its WAL holds anything."""
    with contextlib.suppress(OSError):  # without it the next start takes longer, no more
        if _wal_empty(path):
            _of(path).write_bytes(_told_of(path))


def break_seal(path: Path) -> None:
    """Before the first write: the file is not sealed any more, on the disk as well.

    Raises:
        StoreUnusable: The seal cannot be removed.
    """
    try:
        _of(path).unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnusable(f"{_of(path)} cannot be removed ({error.strerror}): remove it") from error
    synced(path.parent)


def synced(path: Path) -> None:
    """Have the disk hold a file, or what names a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _of(path: Path) -> Path:
    return path.with_name(path.name + _SUFFIX)


def _told_of(path: Path) -> bytes:
    # Not by its device: numbers of devices change from one boot to the next.
    now = path.stat()
    return f"{now.st_ino} {now.st_size} {now.st_mtime_ns} {now.st_ctime_ns}\n".encode()


def _wal_empty(path: Path) -> bool:
    wal = path.with_name(path.name + "-wal")
    return not wal.exists() or wal.stat().st_size == 0
