"""pandas, Datasette and Jupyter on the replica of a daemon at work, as docs/reading.md shows. `make test-clients`.

Each is a process of its own, as it is for whoever uses it: two SQLite libraries in one process undo each other's locks.
"""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.broker import free_port
from tests.documents import inline
from tests.e2e.load import People
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

_PANDAS = """
import sqlite3, pandas
rows = 0
for _ in range(50):
    frame = {read}
    assert frame["Id"].is_unique and frame["_deleted_at"].isna().all()
    rows = len(frame)
print(rows, *frame.columns)
"""
_FRAME = """
import pandas
from connector import SFSync
with SFSync() as sync:
    frame = {frame}
    print(len(frame), *frame.columns)
"""
_NOTEBOOK = """
import sys, nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(source) for source in sys.argv[1:]]
notebook = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=40, kernel_name="python3").execute()
print("\\n".join(output.get("text") or output["data"]["text/plain"] for c in notebook.cells for output in c.outputs))
"""


def told(stack: Stack, script: str, *arguments: str) -> str:
    """What a Python program prints, in the daemon's directory."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        cwd=stack.daemon.settings.parent,
        env=stack.daemon.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def datasette(stack: Stack) -> Iterator[str]:
    """Datasette on the replica; its address."""
    port, command = free_port(), inline("datasette data/salesforce.db").split()
    command[command.index("--port") + 1] = str(port)
    with (stack.daemon.settings.parent / "datasette.log").open("wb") as log:
        words = [str(Path(sys.executable).parent / command[0]), *command[1:]]
        process = subprocess.Popen(words, cwd=stack.daemon.settings.parent, stdout=log, stderr=log)  # noqa: S603 - as documented
    try:
        url = f"http://127.0.0.1:{port}/salesforce"
        until(lambda: process.poll() is not None or _there(url), 30.0)
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _there(url: str) -> bool:
    try:
        return bool(_fetched(url + ".json"))
    except OSError:
        return False


def _fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - a loopback address
        return json.load(answer)


def test_pandas_reads_while_the_daemon_writes(stack: Stack) -> None:
    """Whole frames, of one moment each; the daemon is not held up."""
    with People(stack.told["url"], seed=7) as people:
        rows, *columns = told(stack, _PANDAS.format(read=inline("pandas.read_sql"))).split()
    assert people.edits > 0
    assert int(rows) > 0
    assert {"Id", "LastName", "Email", "_version"} <= set(columns)
    stack.settled()


def test_a_frame_of_what_python_reads(stack: Stack) -> None:
    """`SFSync` and pandas together, by attribute."""
    rows, *columns = told(stack, _FRAME.format(frame=inline("pandas.DataFrame"))).split()
    live = [row for row in stack.replica.records("Contact").values() if row["_deleted_at"] is None]
    assert int(rows) == len(live)
    assert {"id", "last_name", "email"} <= set(columns)


def test_datasette_shows_and_searches_while_the_daemon_writes(stack: Stack) -> None:
    """Views, and the text index by its own search box; every answer is whole."""
    made = stack.org.create("Contact", LastName="Datasettling")
    stack.until_change(made)
    until(lambda: stack.replica.searchable("Contact"))
    with datasette(stack) as url, People(stack.told["url"], seed=9) as people:
        search = f"{url}/contact.json?_shape=array&_search=datasettling"
        until(lambda: [row["Id"] for row in _fetched(search)] == [made])
        for _ in range(20):
            shown = _fetched(f"{url}/contact_live.json?_shape=array&_size=1000")
            assert all(row["_deleted_at"] is None for row in shown)
            assert len({row["Id"] for row in shown}) == len(shown) > 0
    assert people.edits > 0
    stack.settled()


def test_a_notebook_reads_and_writes(stack: Stack) -> None:
    """Cells of a real kernel, whose event loop runs; a command goes out and its result comes back."""
    printed = told(
        stack,
        _NOTEBOOK,
        "import asyncio; await asyncio.sleep(0); asyncio.get_running_loop().is_running()",
        "from connector import Contact, SFSync\nsync = SFSync()",
        "print(sync.contacts.create(Contact(last_name='Notebook')).wait(timeout=20).status)",
        "sync.contacts.search(last_name='Notebook').first()",
        "sync.contacts",
    ).splitlines()
    assert printed[0] == "True"
    assert "succeeded" in printed
    assert any("last_name='Notebook'" in line for line in printed)
    assert any(line.startswith("<Contact: ") for line in printed)
