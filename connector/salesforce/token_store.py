"""Where a rotated refresh token is kept: without it a restart could never log in again."""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

import orjson


class TokenStore(Protocol):
    """Durable memory of the refresh token that came out of the configured one by rotation."""

    async def load(self, configured: str) -> str:
        """The newest token that descends from `configured`; itself if none does.

        Raises:
            OSError: The store cannot be read.
        """
        ...

    async def save(self, configured: str, newest: str) -> None:
        """Return once `newest` is on disk.

        Raises:
            OSError: It is not.
        """
        ...


class FileTokenStore:
    """A file that its owner alone can read; replaced in one step, so a crash leaves the old or the new one.

    It names the configured token by a hash: a token that the operator has set anew beats what an older one became.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self, configured: str) -> str:
        """See `TokenStore`."""
        return await asyncio.to_thread(self._load, configured)

    async def save(self, configured: str, newest: str) -> None:
        """See `TokenStore`."""
        await asyncio.to_thread(self._save, configured, newest)

    def _load(self, configured: str) -> str:
        try:
            kept = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return configured
        except orjson.JSONDecodeError:
            return configured
        ours = isinstance(kept, dict) and kept.get("configured_sha256") == _hash(configured)
        return str(kept["refresh_token"]) if ours and kept.get("refresh_token") else configured

    def _save(self, configured: str, newest: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes it readable by the owner alone.
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(orjson.dumps({"configured_sha256": _hash(configured), "refresh_token": newest}))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
