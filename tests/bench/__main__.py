"""The benchmarks: `python -m tests.bench [NAME ...] [--json FILE]`; all of them unless named.

Each runs the product as its operator does, on this machine. Exits 1 if a figure misses its target.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench import beside, bridging, commands, load, million, reads, stream
from tests.bench.harness import SHIPPED, Figure, document, machine, shipped_broker, table
from tests.broker import ProcessBroker
from tests.e2e.stack import Stack
from tests.e2e.watcher import ROOT

Benchmark = Callable[[Path], Sequence[Figure]]


def commands_benchmark(directory: Path) -> Sequence[Figure]:
    """Commands on an org of ten thousand contacts, with the settings that ship."""
    options = shipped_broker("max_queued_messages 100000", "max_inflight_messages 500")
    broker = ProcessBroker(directory / "broker", options)
    settings = {**SHIPPED, "sync": {"objects": ["Contact"], "backoff_max": "60s"}}
    with Stack(directory, broker, settings, ("Contact",), watched=(f"{ROOT}/health",)) as stack:
        stack.org.set(api_limit=10**9, delivered_event_limit=10**9)
        stack.org.seed(contacts=commands.UPDATES)
        stack.start()
        return [*commands.idle(stack), *commands.throughput(stack)]


def reads_benchmark(directory: Path) -> Sequence[Figure]:
    """Reads of a million contacts while a hundred events a second come in."""
    broker = ProcessBroker(directory / "broker", shipped_broker())
    with Stack(directory, broker, {"sync": {"objects": ["Contact"], "verify_interval": "30d"}}, ("Contact",)) as stack:
        stack.org.set(api_limit=10**9, delivered_event_limit=10**9)
        stack.org.seed(contacts=500)
        stack.start()
        if stack.daemon.stop() != 0:
            raise RuntimeError(stack.daemon.last_words())
        stack.watcher.unsubscribe()
        return reads.reads(stack)


BENCHMARKS: Mapping[str, Benchmark] = {
    "stream": stream.stream,
    "pubsub": stream.pubsub,
    "bridge": bridging.bridge,
    "load": load.load,
    "tools": beside.beside,
    "million": million.million,
    "commands": commands_benchmark,
    "reads": reads_benchmark,
}


def main() -> int:
    """Run them."""
    options = _options()
    facts = machine()
    figures: list[Figure] = []
    for name in options.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            figures += BENCHMARKS[name](Path(directory))
    sys.stdout.write(table(figures) + "\n")
    if options.json is not None:
        options.json.write_text(document(figures, facts) + "\n", encoding="utf-8")
    return 0 if all(figure.met for figure in figures) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which")
    parser.add_argument("--json", type=Path, help="write machine, versions and figures there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
