"""Writes from the command line, against a local org: queued on disk, sent by `push` or by the daemon."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connector.devorg.admin.seed import Seed, sow
from connector.devorg.server import DevOrg
from connector.store import Session
from tests.integration.test_cli import Place


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as made:
        await sow(made.ctx, Seed(accounts=1, contacts=3))
        yield made


@pytest.fixture
async def place(tmp_path: Path, org: DevOrg) -> Place:
    """A directory whose replica is loaded."""
    (tmp_path / "settings.toml").write_text(
        f'[salesforce]\ninstance_url = "{org.url}"\n[sync]\nobjects = ["Contact", "Opportunity"]\n'
        '[objects.Contact]\nfields = ["FirstName", "LastName", "Phone"]\n[commands]\ndeletes_per_hour = 1\n',
        "utf-8",
    )
    known = org.ctx.credentials
    made = Place(tmp_path, {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret})
    assert (await made.run("sync")).code == 0
    return made


def contacts(org: DevOrg) -> list[str]:
    rows = org.ctx.database.connection.execute("SELECT Id FROM record_contact WHERE IsDeleted = 0 ORDER BY Id")
    return [str(row["Id"]) for row in rows]


async def test_a_record_is_made_changed_and_deleted(org: DevOrg, place: Place) -> None:
    """Queued without the org being asked, sent together by `push`; then nothing is left."""
    first, second, *_ = contacts(org)
    used = org.ctx.usage.api.used()
    made = await place.run("create", "contact", "lastname=From the shell", "Phone= 555 ", "--id", "shell-1")
    assert (made.code, "queued" in made.out) == (0, True), made.err
    assert (await place.run("update", "Contact", first, "Phone=", "FirstName=Jo")).code == 0
    assert (await place.run("delete", "Contact", second, "--on-conflict", "overwrite")).code == 0
    assert org.ctx.usage.api.used() == used
    pushed = await place.run("push")
    assert (pushed.code, pushed.out) == (0, "3 commands sent by this process, 0 left\n"), pushed.err
    row = org.ctx.org.get("Contact", first)
    assert row is not None
    assert (row["Phone"], row["FirstName"]) == (None, "Jo")
    assert second not in contacts(org)
    listed = (await place.run("commands", "--status", "succeeded", "--json")).json
    assert {c["operation"] for c in listed} == {"create", "update", "delete"}
    assert (await place.run("push")).out == "nothing is queued\n"


async def test_what_cannot_be_is_told_line_by_line(org: DevOrg, place: Place) -> None:
    """Exit 2, and nothing is queued."""
    first, second, *_ = contacts(org)
    wrong = await place.run("update", "Contact", first, "Nope=1", "Phone=" + "x" * 99)
    assert wrong.code == 2
    assert [line.split(":")[1].strip() for line in wrong.err.splitlines()] == ["fields.Nope", "fields.Phone"]
    assert (await place.run("create", "Contact", "LastName")).code == 2
    assert (await place.run("create", "Case", "Subject=x")).code == 2
    assert (await place.run("create", "Opportunity", "Name=x", "Amount=much")).err.count("expected a number") == 1
    assert (await place.run("delete", "Contact", first)).code == 0
    refused = await place.run("delete", "Contact", second)
    assert (refused.code, "commands.deletes_per_hour = 1" in refused.err) == (2, True)


async def test_a_dry_run_says_what_would_be_sent(org: DevOrg, place: Place) -> None:
    """And queues nothing."""
    first, *_ = contacts(org)
    told = (await place.run("update", "Contact", first, "Phone=1", "--dry-run")).json
    assert (told["status"], told["dry_run"]["fields"]) == ("accepted", {"Phone": "1"})
    assert json.loads((await place.run("commands", "--json")).out) == []


async def test_a_person_retries_and_cancels(org: DevOrg, place: Place) -> None:
    """A failed one is opened again, a waiting one taken back; what has its end, or was never kept, is refused."""
    first, *_ = contacts(org)
    org.ctx.faults.add(
        "rest", path="/sobjects/Contact$", status=400, code="FIELD_CUSTOM_VALIDATION_EXCEPTION", message="no"
    )
    await place.run("create", "Contact", "LastName=Again", "--id", "a")
    await place.run("push")
    (failed,) = (await place.run("commands", "--status", "failed", "--json")).json
    assert failed["errors"][0]["code"] == "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    assert (await place.run("commands", "retry", "a")).code == 0
    await place.run("push")
    assert [c["status"] for c in (await place.run("commands", "--json")).json] == ["succeeded"]
    assert (await place.run("commands", "retry", "a")).code == 2
    await place.run("update", "Contact", first, "Phone=9", "--id", "b")
    assert (await place.run("commands", "cancel", "b")).out == "b is rejected\n"
    assert (await place.run("commands", "cancel", "b")).code == 2
    assert (await place.run("commands", "retry", "b")).code == 0
    assert (await place.run("commands", "cancel", "nobody")).code == 2
    with Session(place.path / "data" / "salesforce.db") as session:
        due = session.run(lambda unit: [m.message for m in unit.due(100)])
    topics = [m.topic for m in due]
    assert topics.count("blackroad/salesforce/result/b") == 3
    assert "Again" not in (await place.run("commands")).out


async def test_in_a_pipe_a_command_is_a_line(org: DevOrg, place: Place) -> None:
    """`grep` and `cut` find ids whole."""
    assert (
        await place.run("create", "Contact", "LastName=Line", "--id", "a-rather-long-idempotency-key-0001")
    ).code == 0
    assert (await place.run("update", "Contact", contacts(org)[0], "Phone=1", "--id", "b")).code == 0
    lines = (await place.run("commands")).out.splitlines()[1:]
    assert [len(lines), sum("a-rather-long-idempotency-key-0001" in line for line in lines)] == [2, 1]
    assert sum(contacts(org)[0] in line for line in lines) == 1


async def test_an_org_that_is_down_leaves_everything_queued(org: DevOrg, place: Place) -> None:
    """Exit 3; the next push sends it."""
    await place.run("create", "Contact", "LastName=Later", "--id", "a")
    await org.hang_up()
    assert (await place.run("push", "--timeout", "1")).code in (1, 3)
    await org.listen()
    assert (await place.run("push")).code == 0
