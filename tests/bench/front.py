"""What stands before the local org in a benchmark: a process of its own that answers like the org, and faster."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from tests.broker import free_port
from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]


class FrontProcess:
    """A front; use with `with`.

    Args:
        module: Its program, in `tests.bench`.
        org_url: Of the local org.
        words: More of its command line.
        asked: A path that it answers once it is ready.

    Attributes:
        settings: Of section `salesforce`, by which the daemon finds it.
    """

    def __init__(self, module: str, org_url: str, words: list[str], *, asked: str) -> None:
        port = free_port()
        self.url = f"http://localhost:{port}"
        self.settings = {"instance_url": self.url}
        self._asked = asked
        command = [sys.executable, "-m", f"tests.bench.{module}", "--org", org_url, "--port", str(port), *words]
        self._process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - our own program

    def __enter__(self) -> Self:
        until(self._answers, 20.0, say=lambda: "the feed does not answer")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}{self._asked}", timeout=5).ok
        except requests.ConnectionError:
            return False
