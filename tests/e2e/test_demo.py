"""The demo is the first thing a newcomer runs: it must end well by itself, and on Ctrl-C."""

import asyncio
import re
import signal
import sys

import aiohttp
import pytest


async def demo(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connector", "demo", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.timeout(120)
async def test_demo_ends_by_itself_with_a_summary() -> None:
    """Without a terminal too: exit 0, every edit arrived, the replica equal to the org."""
    process = await demo("--seconds", "4")
    out, _ = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text
    assert re.search(r"records that differ\s+│\s+0 │", text)
    assert re.search(r"versions missed by the subscriber\s+│\s+0 │", text)


@pytest.mark.timeout(120)
async def test_demo_goes_on_until_interrupted_and_says_where_everything_is() -> None:
    """`--seconds 0`: one can join in; Ctrl-C ends it with the summary."""
    process = await demo("--seconds", "0")
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(60):
        while "edits  " not in seen:  # the first line of progress
            seen += (await process.stdout.readline()).decode()
    assert re.search(r"broker\s+127\.0\.0\.1:\d+", seen)
    assert re.search(r"org\s+http://\S+:\d+", seen)
    assert re.search(r"database\s+\S+salesforce\.db", seen)
    page = re.search(r"page\s+(http://127\.0\.0\.1:\d+)", seen)
    assert page is not None
    async with aiohttp.ClientSession() as client, client.get(page[1]) as answer:
        assert "salesforce-sync" in await answer.text()
    process.send_signal(signal.SIGINT)
    rest, _ = await process.communicate()
    assert process.returncode == 0, rest.decode()
    assert "records that differ" in rest.decode()
