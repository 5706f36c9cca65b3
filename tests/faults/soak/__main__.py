"""The soak: `python -m tests.faults.soak --seeds 1000 [--first N] [--jobs 2] [--seconds 1.5]`.

Each seed makes its own random edits, commands and faults, then quiet; afterwards the replica must equal the org record
by record, the published changes must add up to the replica, every command must have had exactly one effect and one
answer, and nothing may be left in doubt. Exits 1 if a seed failed, after telling how to play it again.
"""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

from tests.faults.soak.seed import Outcome, run_seed

_TELL_EVERY = 25


def main() -> int:
    """Play the seeds."""
    options = _options()
    began_s = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in _played(options):
        outcomes.append(outcome)
        if outcome.problems:
            _tell(outcome, options)
        if len(outcomes) % _TELL_EVERY == 0:
            _say(f"{len(outcomes)} of {options.seeds}, {sum(bool(o.problems) for o in outcomes)} failed")
    _sum_up(outcomes, time.monotonic() - began_s)
    return 1 if any(outcome.problems for outcome in outcomes) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=25, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="at once")
    parser.add_argument("--seconds", type=float, default=1.5, help="of upheaval in each")
    parser.add_argument("--repeat", type=int, default=1, help="play each so often: chance of the machine differs")
    return parser.parse_args()


def _played(options: argparse.Namespace) -> Iterator[Outcome]:
    seeds = [seed for seed in range(options.first, options.first + options.seeds) for _ in range(options.repeat)]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawned) as pool:
        futures: list[Future[Outcome]] = [pool.submit(run_seed, seed, options.seconds) for seed in seeds]
        for future in as_completed(futures):
            yield future.result()


def _tell(outcome: Outcome, options: argparse.Namespace) -> None:
    again = f"python -m tests.faults.soak --first {outcome.seed} --seeds 1 --seconds {options.seconds}"
    _say(f"\n=== seed {outcome.seed} failed after {outcome.took_s:.1f} s; again: {again}")
    _say(outcome.report)
    _say(f"files: {outcome.kept}")
    for problem in outcome.problems:
        _say(f"PROBLEM {problem}")


def _sum_up(outcomes: list[Outcome], took_s: float) -> None:
    failed = sorted(o.seed for o in outcomes if o.problems)
    figures = Counter[str]()
    for outcome in outcomes:
        figures.update(commits=outcome.commits, changes=outcome.changes, commands=outcome.commands)
    per_seed_s = sum(o.took_s for o in outcomes) / max(1, len(outcomes))
    _say(
        f"{len(outcomes)} seeds in {took_s:.0f} s ({per_seed_s:.2f} s each): {figures['commits']} transactions,"
        f" {figures['changes']} changes, {figures['commands']} commands; {len(failed)} failed"
    )
    if failed:
        _say(f"failed: {failed}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
