"""The stream beside what people use for it today: a bridge of jsforce and MQTT.js, over the same feed and broker.

The bridge publishes each event as it came. It has no replica and no position on disk: `docs/benchmarks.md` tells what
it leaves out.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests import npm
from tests.bench.harness import Figure, cpu_s, resident_mb
from tests.bench.stream import FULL, FeedProcess, Scale, fed, run
from tests.e2e.stack import Stack

SOURCE = Path(__file__).parent / "bridge"
PLACE = Path(__file__).parents[2] / "build" / "bridge"


def bridge(directory: Path, scale: Scale = FULL) -> list[Figure]:
    """Ours, then the bridge's; none where there is no Node.js."""
    modules = npm.installed(SOURCE, PLACE)
    if modules is None:
        sys.stderr.write(f"bridge: left out: {npm.MISSING}\n")
        return []
    with fed(directory, scale.contacts) as (stack, feed):
        ids = sorted(stack.org.records("Contact"))
        run(stack, feed, ids, scale.warm_up)
        ours = _sustained(stack, feed, ids, scale, stack.daemon.pid)
        memory_mb = resident_mb(stack.daemon.pid)[1]
        if stack.daemon.stop() != 0:
            raise RuntimeError(stack.daemon.last_words())
        with bridging(modules, feed, stack) as process:
            run(stack, feed, ids, scale.warm_up)
            theirs = _sustained(stack, feed, ids, scale, process.pid)
            their_memory_mb = resident_mb(process.pid)[1]
    return [
        Figure(name="changes a second, beside a bridge", value=ours[0], unit="/s", ceiling=theirs[0]),
        Figure(name="processor per change", value=ours[1], unit="µs", better="less", ceiling=theirs[1]),
        Figure(name="peak memory", value=memory_mb, unit="MB", better="less", ceiling=their_memory_mb),
    ]


@contextmanager
def bridging(modules: Path, feed: FeedProcess, stack: Stack) -> Iterator[subprocess.Popen[str]]:
    """The bridge, subscribed."""
    node = shutil.which("node")
    assert node is not None
    # Packages are looked for beside the program: it runs from a copy beside them.
    program = shutil.copyfile(SOURCE / "bridge.mjs", modules.parent / "bridge.mjs")
    words = [node, str(program), feed.url, str(stack.broker.port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), "the bridge has ended"
            yield process
        finally:
            process.terminate()


def _sustained(stack: Stack, feed: FeedProcess, ids: list[str], scale: Scale, pid: int) -> tuple[float, float]:
    """Changes a second to a subscriber's callback, and microseconds of a process's processor for each; medians."""
    rates, used_us = [], []
    for _ in range(scale.repeats):
        before_s = cpu_s(pid)
        began_s, told = run(stack, feed, ids, scale.sustained)
        used_us.append((cpu_s(pid) - before_s) / scale.sustained * 1e6)
        rates.append(scale.sustained / (told["times"][-1] - began_s))
    return median(rates), median(used_us)
