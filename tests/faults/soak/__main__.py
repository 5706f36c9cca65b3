"""The soak: `python -m tests.faults.soak --seeds 1000 [--first N] [--jobs J] [--seconds 1.5] [--transport pubsub]`.

Each seed makes its own random edits, commands and faults, then quiet; afterwards the replica must equal the org record
by record, the published changes must add up to the replica, every command must have had exactly one effect and one
answer, whatever may have differed must have been announced, and nothing may be left in doubt. Exits 1 if a seed failed,
after telling how to play it again.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.faults.soak.seed import Outcome, run_seed

_TELL_EVERY = 25
# A seed mostly waits: for what its daemon waits for.
_JOBS = 2 * (os.cpu_count() or 1)


def main() -> int:
    """Play the seeds."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began_s = time.monotonic()
    outcomes: list[Outcome] = []
    with contextlib.suppress(KeyboardInterrupt):  # what has been played is summed up
        for outcome in _watched(options):
            outcomes.append(outcome)  # noqa: PERF402 - they are kept where the loop is left early
    summary = _summary(outcomes, time.monotonic() - began_s)
    if options.json:
        failures = [_failure(outcome, options) for outcome in outcomes if outcome.problems]
        _say(json.dumps({**summary, "failures": failures}, ensure_ascii=False))
    else:
        _sum_up(summary)
    return 1 if summary["failed"] or len(outcomes) < options.seeds * options.repeat else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=25, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--jobs", type=int, default=_JOBS, help=f"at once (here {_JOBS})")
    parser.add_argument("--seconds", type=float, default=1.5, help="of upheaval in each")
    parser.add_argument("--repeat", type=int, default=1, help="play each so often: chance of the machine differs")
    parser.add_argument("--transport", choices=("cometd", "pubsub"), default="cometd", help="of the change stream")
    parser.add_argument("--stop", action="store_true", help="at the first failure")
    parser.add_argument("--json", action="store_true", help="one JSON document at the end")
    options = parser.parse_args()
    if options.seed is not None:
        options.first, options.seeds = options.seed, 1
    return options


def _watched(options: argparse.Namespace) -> Iterator[Outcome]:
    """The outcomes as they come; failures are told at once, progress as the terminal allows."""
    bar = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*bar, TextColumn("{task.fields[failed]} failed"), console=Console(stderr=True)) as progress:
        on_terminal = progress.console.is_terminal
        progress.disable = not on_terminal
        task = progress.add_task("seeds", total=options.seeds * options.repeat, failed=0)
        failed = 0
        for count, outcome in enumerate(_played(options), start=1):
            failed += bool(outcome.problems)
            progress.update(task, completed=count, failed=failed)
            if outcome.problems and not options.json:
                _tell(outcome, options)
            if count % _TELL_EVERY == 0 and not on_terminal and not options.json:
                _say(f"{count} of {options.seeds * options.repeat}, {failed} failed")
            yield outcome


def _played(options: argparse.Namespace) -> Iterator[Outcome]:
    seeds = [seed for seed in range(options.first, options.first + options.seeds) for _ in range(options.repeat)]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawned) as pool:
        futures: list[Future[Outcome]] = [
            pool.submit(run_seed, seed, options.seconds, options.transport) for seed in seeds
        ]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                yield outcome
                if outcome.problems and options.stop:
                    return
        finally:  # interrupted, too: the seeds that are being played end by themselves, with their brokers
            pool.shutdown(cancel_futures=True)


def _again(outcome: Outcome, options: argparse.Namespace) -> str:
    return (
        f"python -m tests.faults.soak --seed {outcome.seed} --seconds {options.seconds} --transport {options.transport}"
    )


def _tell(outcome: Outcome, options: argparse.Namespace) -> None:
    _say(f"\n=== seed {outcome.seed} failed after {outcome.took_s:.1f} s; again: {_again(outcome, options)}")
    _say(outcome.report)
    _say(f"files: {outcome.kept}")
    for problem in outcome.problems:
        _say(f"PROBLEM {problem}")


def _failure(outcome: Outcome, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "seed": outcome.seed,
        "again": _again(outcome, options),
        "faults": outcome.faults,
        "problems": outcome.problems,
        "report": outcome.report.splitlines(),
        "files": outcome.kept,
    }


def _summary(outcomes: Sequence[Outcome], took_s: float) -> dict[str, Any]:
    figures, faults = Counter[str](), Counter[str]()
    for outcome in outcomes:
        figures.update(
            transactions=outcome.commits,
            changes=outcome.changes,
            commands=outcome.commands,
            in_jobs=outcome.in_jobs,
        )
        faults.update(outcome.faults)
    return {
        "seeds": len(outcomes),
        "took_s": round(took_s, 1),
        "seed_s": round(sum(o.took_s for o in outcomes) / max(1, len(outcomes)), 2),
        **figures,
        "faults": dict(sorted(faults.items())),
        "failed": sorted(o.seed for o in outcomes if o.problems),
    }


def _sum_up(summary: dict[str, Any]) -> None:
    _say(
        f"{summary['seeds']} seeds in {summary['took_s']:.0f} s ({summary['seed_s']} s each):"
        f" {summary['transactions']} transactions, {summary['changes']} changes, {summary['commands']} commands,"
        f" {summary['in_jobs']} records written by ingest jobs,"
        f" {sum(summary['faults'].values())} kinds of fault; {len(summary['failed'])} failed"
    )
    if summary["failed"]:
        _say(f"failed: {summary['failed']}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
