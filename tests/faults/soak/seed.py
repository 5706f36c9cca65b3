"""One seed from start to verdict."""

import asyncio
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

import orjson

from tests.e2e.watcher import ROOT
from tests.faults.soak import aftermath, verdict
from tests.faults.soak.commands import JOBS, body_of
from tests.faults.soak.fields import OBJECTS
from tests.faults.soak.plan import Plan, plan_of
from tests.faults.soak.upheaval import Upheaval
from tests.faults.soak.world import World

READY_S = 30.0
# So long only on a machine that has other things to do: alone, it takes a second or two.
QUIET_S = 90.0
SEED_S = 300.0
# Killing a process loses nothing that it wrote to memory, and waiting for the disk is what most of a seed would be.
_MEMORY = Path("/dev/shm")  # noqa: S108 - `mkdtemp` makes what it is asked for there
_LOOK_S = 0.05
_AGAIN_S = 1.5
_MOST_TOLD = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed.

    Attributes:
        in_jobs: Records that ingest jobs have written.
        problems: Empty if all is well.
        report: For a failing seed: its set-up, the trace and the end of the daemon's log.
        kept: Folder with the replica and the logs of a failing seed.
    """

    seed: int
    took_s: float
    commits: int
    changes: int
    commands: int
    in_jobs: int
    faults: tuple[str, ...]
    problems: tuple[str, ...] = ()
    report: str = ""
    kept: str = ""


def run_seed(seed: int, seconds: float, transport: str) -> Outcome:
    """Play one seed in this process."""
    # Connections are cut on purpose, and the org's server tells of each.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    return asyncio.run(_bounded(plan_of(seed, seconds, transport)))


async def _bounded(plan: Plan) -> Outcome:
    home = str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None
    directory = Path(mkdtemp(prefix=f"soak-{plan.seed}-", dir=home))
    started_s = time.monotonic()
    player = _Player(plan, directory)
    problems: Sequence[str]
    try:
        async with asyncio.timeout(SEED_S):
            problems = await player.play()
    except Exception as error:  # noqa: BLE001 - a fault of the runner or of the org is a failing seed too
        problems = [f"the run itself failed: {type(error).__name__}: {error}", *_trace_of(error)]
    took_s = time.monotonic() - started_s
    outcome = player.outcome(tuple(problems), took_s)
    if not problems:
        shutil.rmtree(directory, ignore_errors=True)
    return outcome


def _trace_of(error: BaseException) -> list[str]:
    import traceback  # noqa: PLC0415 - for a failing run only

    return traceback.format_exception(error)[-6:]


class _Player:
    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        self._directory = directory
        self._rng = random.Random(plan.seed + 1)
        self.world = World(directory, plan.seed, plan.variant, verdict.missed)
        self._counts = (0, 0, 0, 0)

    async def play(self) -> Sequence[str]:
        async with self.world as world:
            try:
                return await self._played(world)
            finally:
                changes = world.replica.last_version() if world.replica.path.exists() else 0
                commits = world.ledger.commits
                in_jobs = sum(len(commit.changes) for commit in commits if commit.origin.startswith(JOBS))
                self._counts = len(commits), changes, len(world.service.asked), in_jobs

    async def _played(self, world: World) -> Sequence[str]:
        world.daemon.start()
        if self._plan.variant.patient:
            await self._wait(lambda: [] if world.replica.loaded(OBJECTS) else ["not loaded"], READY_S)
            world.note("ready")
        upheaval = Upheaval(world)
        began_s = time.monotonic()
        for step in self._plan.steps:
            await asyncio.sleep(max(0.0, began_s + step.at_s - time.monotonic()))
            await upheaval.step(step.kind, random.Random(step.seed))
        await upheaval.end(self._rng)
        world.note(f"quiet; needs { {verb: sorted(names) for verb, names in world.needs.items()} }")
        left = await self._converged(world)
        if not left:
            left = await self._lives(world)
        code = await world.daemon.stop()
        world.note(f"daemon stopped with {code}")
        problems = [f"not settled: {problem}" for problem in left[:_MOST_TOLD]]
        problems += [f"the daemon ended by itself with {e.code}:\n{e.words}" for e in world.daemon.unexpected()]
        if code != 0:
            problems.append(f"SIGTERM ended it with {code}")
        return [*problems, *verdict.problems(world)]

    async def _converged(self, world: World) -> Sequence[str]:
        """Wait until nothing is left to do.

        A service asks again for what it got no answer to, and an operator for a sync or a comparison where things
        happened that no event told of: what one does not see because the stream is behind, the next one does.
        """

        def again() -> None:
            for asked in world.service.open():
                if asked.command_id:
                    world.service.send(asked)
            if world.stream_state() == "paused":  # a broker that forgets has forgotten the resumption, too
                world.watcher.send(f"{ROOT}/control/resume", {"reply_to": "soak/help"}, wait=False)
            for verb, names in sorted(world.needs.items()):
                body = {"reply_to": "soak/help", "objects": sorted(names)}
                world.watcher.send(f"{ROOT}/control/{verb}", body, wait=False)

        in_time = await self._wait(lambda: verdict.unsettled(world), QUIET_S, again=again)
        left = [] if in_time else verdict.unsettled(world, None)
        world.note("settled" if not left else f"not settled: {left[0]}")
        return left

    async def _lives(self, world: World) -> Sequence[str]:
        """Something more happens after the quiet: it arrives by itself."""
        aftermath.play(world, self._rng)
        in_time = await self._wait(lambda: verdict.unsettled(world), QUIET_S)
        return [] if in_time else [f"after the quiet: {problem}" for problem in verdict.unsettled(world, None)]

    async def _wait(
        self, look: Callable[[], Sequence[str]], timeout_s: float, *, again: Callable[[], None] | None = None
    ) -> bool:
        """Look until there is nothing to complain of; False where the time is up."""
        deadline_s = time.monotonic() + timeout_s
        ask_s, pause_s = 0.0, _AGAIN_S
        while look():
            now_s = time.monotonic()
            if now_s > deadline_s:
                return False
            if again is not None and now_s > ask_s:
                ask_s, pause_s = now_s + pause_s, pause_s * 1.5  # patient enough not to be the load itself
                again()
            await asyncio.sleep(_LOOK_S)
        return True

    def outcome(self, problems: tuple[str, ...], took_s: float) -> Outcome:
        plan = self._plan
        done = Outcome(plan.seed, took_s, *self._counts, plan.faults)
        if not problems:
            return done
        return replace(done, problems=problems, report=self._report(), kept=str(self._directory))

    def _report(self) -> str:
        world, variant = self.world, self._plan.variant
        sections = {name: values for name, values in variant.settings.items() if name != "objects"}
        lines = [f"faults: {', '.join(self._plan.faults)}", f"settings: {orjson.dumps(sections).decode()}"]
        lines += [f"events: {variant.events}", *world.trace]
        lines += ["commands:", *(body_of(asked) for asked in world.service.open())] if hasattr(world, "service") else []
        lines += ["the daemon's last words:", world.daemon.last_words()] if hasattr(world, "daemon") else []
        return "\n".join(lines)
