"""Two editors of one record, through the real door to the local org, in any order: nobody's edit is lost unseen."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connector.devorg.commits import Commit
from connector.devorg.server import DevOrg
from connector.model.command import CommandStatus
from tests.orgcommands import EDITOR, OrgBench, org_bench
from tests.waiting import until

FIELDS = ("Phone", "Email", "Title")
OWNER = {"Title": "mesh"}
POLICIES = ("merge", "reject", "overwrite")

fields = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2, unique=True)
two_fields = st.lists(st.sampled_from(FIELDS), min_size=2, max_size=2, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("command"), st.sampled_from(POLICIES), fields),
        st.tuples(st.just("repeat"), st.sampled_from(POLICIES), two_fields),
        st.tuples(st.just("person"), st.none(), fields),
        st.tuples(st.just("catch_up"), st.none(), st.just([])),
        st.tuples(st.just("send"), st.none(), st.just([])),
        st.tuples(st.just("time"), st.sampled_from(["1", "90"]), st.just([])),
        st.tuples(st.just("lose"), st.none(), st.just([])),
        st.tuples(st.just("lose_now"), st.none(), st.just([])),
    ),
    min_size=2,
    max_size=9,
)
Step = tuple[str, str | None, list[str]]


@dataclass
class Ours:
    """A command as the test gave it: what its sender had seen."""

    policy: str
    wanted: Mapping[str, Any]
    seen: Mapping[str, Any]

    def allows(self, name: str, found: Any, own: Sequence[Any]) -> bool:
        """Whether it may write over what it found in a field, where `own` are values that commands had written."""
        owned = OWNER.get(name) == "mesh" and self.policy != "reject"
        return owned or self.policy == "overwrite" or found in (self.seen[name], *own)


@dataclass
class Story:
    """What happened, to be judged at the end."""

    ours: dict[str, Ours] = field(default_factory=dict)
    number: int = 0

    def value(self, name: str) -> str:
        self.number += 1
        return f"v{self.number}@x.example" if name == "Email" else f"v{self.number}"


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def org(runner: asyncio.Runner) -> Iterator[DevOrg]:
    made = DevOrg()
    runner.run(made.start())
    made.ctx.settings.api_limit = 10**9
    yield made
    runner.run(made.stop())


async def play(org: DevOrg, script: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with org_bench(Path(folder) / "r.db", org, {"Contact": ("LastName", *FIELDS)}, owner=OWNER) as bench:
            await _play(bench, script)


async def _play(bench: OrgBench, script: list[Step]) -> None:
    story = Story()
    contact = bench.people_write("Contact", None, {"LastName": "L"})
    await bench.catch_up("Contact", [contact])
    for what, how, names in script:
        match what:
            case "command" | "repeat":
                command_id, seen = f"c{len(story.ours)}", await _replica(bench, contact)
                wanted = {name: story.value(name) for name in names}
                if what == "repeat":
                    wanted[names[0]] = seen[names[0]]
                story.ours[command_id] = Ours(str(how), wanted, seen)
                payload = {"command_id": command_id, "id": contact, "fields": wanted, "on_conflict": how}
                await bench.give("Contact", "update", payload)
            case "person":
                bench.people_write("Contact", contact, {name: story.value(name) for name in names})
            case "catch_up":
                await bench.catch_up("Contact", [contact])
            case "send":
                await bench.send_all()
            case "time":
                bench.org.ctx.clock.advance(float(how or 0))
            case _:
                bench.org.ctx.faults.add("rest", path="/composite$|/sobjects/Contact/", drop_response=True)
                if what == "lose_now":
                    await _send_and_lose(bench)
    bench.org.ctx.clock.advance(1)
    await bench.send_all()
    bench.org.ctx.faults.clear()
    await _judge(bench, contact, story)


async def _send_and_lose(bench: OrgBench) -> None:
    """Send until an answer is lost; what is lost waits, so that somebody can come between it and its repeat."""

    async def lost_or_done() -> bool:
        left = await bench.database.run(lambda unit: unit.commands(CommandStatus.ACCEPTED, 10**6))
        return await bench.done() or any(c.answer_lost for c in left)

    async with bench.sending():
        await until(lost_or_done, 20)


async def _replica(bench: OrgBench, contact: Any) -> Mapping[str, Any]:
    spec = bench.specs.known["Contact"]
    stored = await bench.database.run(lambda unit: unit.records(spec, [contact]))
    return stored[contact].values


async def _judge(bench: OrgBench, contact: str, story: Story) -> None:
    """Every write of ours found each field as its sender had seen it, or was allowed to overwrite it."""
    writes = [c for c in bench.commits if any(change.id == contact for change in c.changes)]
    written: dict[str, int] = {}  # the last commit that can be no other command's
    shown = {(name, None) for name in FIELDS}  # what the record has ever held
    own: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for at, commit in enumerate(writes):
        before, after = _values(commit, contact)
        shown |= {(name, after[name]) for name in FIELDS}
        for name in FIELDS if commit.user_id != EDITOR else ():
            if after[name] == before[name]:
                continue
            causes = [i for i, ours in story.ours.items() if ours.wanted.get(name, before[name]) == after[name]]
            if len(causes) == 1:
                written[causes[0]] = at
            told = f"{causes} overwrote {name} = {before[name]}"
            assert any(story.ours[i].allows(name, before[name], own[name]) for i in causes), told
            own[name].append(after[name])
    last_edit = max(at for at, commit in enumerate(writes) if commit.user_id == EDITOR)
    for command_id, status in (await bench.statuses()).items():
        ours, done = story.ours[command_id], await bench.command(command_id)
        assert status in (CommandStatus.SUCCEEDED, CommandStatus.CONFLICT)
        if status is CommandStatus.CONFLICT:
            edited_since = done.answer_lost and written.get(command_id, 0) < last_edit
            assert command_id not in written or edited_since, f"{command_id} is told as a conflict and was written"
            assert ours.policy != "overwrite"
        else:
            missing = ours.wanted.items() - shown
            assert not missing, f"{command_id} succeeded, and {missing} was never written"


def _values(commit: Commit, contact: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    (change,) = (change for change in commit.changes if change.id == contact)
    return change.before or {}, change.after


@pytest.mark.timeout(180)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=steps)
@example(script=[("lose", None, []), ("command", "reject", ["Phone"]), ("command", "reject", ["Email"])])
@example(script=[("repeat", "merge", ["Email", "Title"]), ("person", None, ["Email"]), ("lose", None, [])])
@example(
    script=[
        ("command", "merge", ["Email"]),
        ("send", None, []),
        ("command", "overwrite", ["Phone"]),
        ("person", None, ["Phone", "Email"]),
        ("command", "merge", ["Phone", "Email"]),
    ]
)
def test_no_field_is_overwritten_against_its_policy(runner: asyncio.Runner, org: DevOrg, script: list[Step]) -> None:
    """Edits of people and commands in any order, within a second or not, known to the replica or not, answers lost."""
    runner.run(play(org, script))
