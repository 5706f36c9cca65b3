"""The schemas of now against those of every release: what was written for a release goes on working.

docs/versions.md says what counts as breaking. Whoever has to break something gives the document the next number.
"""

import copy
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from connector.schemas import DOCUMENTS, schemas
from tests.compatibility import misfits

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "schemas" / "released"
FILES = sorted(RELEASED.glob("*/*.json"))
NOW = schemas()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_was_released_still_holds(path: Path) -> None:
    """What is published now fits the schema of then; what was accepted then is accepted now."""
    then: Mapping[str, Any] = json.loads(path.read_bytes())
    assert path.stem in NOW, "a document that was released is gone"
    now = NOW[path.stem]
    if now["$id"] != then["$id"]:
        return  # the next number, on purpose
    published = DOCUMENTS[path.stem].direction == "published"
    assert misfits(*((now, then) if published else (then, now))) == []


def test_the_first_release_is_held() -> None:
    """With its documents in both directions."""
    first = {path.stem for path in FILES if path.parent.name == "0.1.0"}
    assert {"change", "change_event", "command", "query", "control", "result", "health"} <= first


def test_the_changelog_dates_every_release() -> None:
    """After Keep a Changelog: newest first, `## 1.2.3 - 2026-11-23`; only what is not released yet has no date.

    A release keeps its schemas, and the version of the program is the newest one.
    """
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    released = headings[headings[:1] == ["Unreleased"] :]
    found = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - (\d{4}-\d{2}-\d{2})", heading) for heading in released]
    assert all(found), released
    versions = [tuple(map(int, heading.groups()[:3])) for heading in found if heading]
    assert versions == sorted(versions, reverse=True)
    assert [date.fromisoformat(heading[4]) for heading in found if heading]
    names = [".".join(map(str, one)) for one in versions]
    assert {path.name for path in RELEASED.iterdir()} == set(names)
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == names[0]


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    schema: dict[str, Any] = copy.deepcopy(NOW[name])
    change(schema)
    return schema


def members(schema: dict[str, Any], model: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = (schema["$defs"][model] if model else schema)["properties"]
    return found


Change = tuple[str, Callable[[dict[str, Any]], object]]
NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
BREAKS_READERS: Mapping[str, Change] = {
    "a member is gone": ("change", lambda s: (members(s).pop("origin"), s["required"].remove("origin"))),
    "a member that may be there is gone": ("query_reply", lambda s: members(s, "QueryReplyDocument").pop("count")),
    "a member may be missing": ("status", lambda s: s["required"].remove("node")),
    "a member may be null": ("status", lambda s: members(s).update(node=NULLABLE)),
    "a member has another type": ("change", lambda s: members(s).update(version={"type": "string"})),
    "a value is new": ("change", lambda s: members(s)["operation"]["enum"].append("merge")),
    "a constant is another": ("change_event", lambda s: members(s)["specversion"].update(const="1.1")),
    "a bound is gone": ("change", lambda s: members(s)["version"].pop("minimum")),
    "a form is another": ("change", lambda s: members(s)["id"].update(pattern="^[a-z]+$")),
    "within a part": ("health", lambda s: members(s, "StreamHealth")["state"]["enum"].append("sleepy")),
    "within a list": ("result", lambda s: members(s, "ProblemDocument").pop("code")),
    "within a table": ("health", lambda s: members(s, "ObjectHealth").update(records={"type": "string"})),
    "another alternative": ("reply", lambda s: s["anyOf"].append({"type": "object"})),
}
BREAKS_WRITERS: Mapping[str, Change] = {
    "a member is not taken any more": ("command", lambda s: members(s).pop("sender")),
    "a member has to be there": ("command", lambda s: s.update(required=["command_id"])),
    "a value is not taken any more": ("command", lambda s: members(s)["on_conflict"]["anyOf"][0]["enum"].pop()),
    "a bound is narrower": ("command", lambda s: members(s)["sender"]["anyOf"][0].update(maxLength=10)),
    "a bound is new": ("command", lambda s: members(s)["fields"]["anyOf"][0].update(maxProperties=10)),
    "a type is narrower": ("query", lambda s: members(s, "ListQuery")["limit"]["anyOf"].pop()),
    "another condition": ("query", lambda s: s["$defs"]["ChangesQuery"].update(anyOf=[{"required": ["since"]}])),
    "an alternative is gone": ("control", lambda s: s["anyOf"].pop(2)),
}
HARMLESS_TO_READERS: Mapping[str, Change] = {
    "a member more": ("change", lambda s: members(s).update(colour={"type": "string"})),
    "a member is always there": ("query_reply", lambda s: s["$defs"]["QueryReplyDocument"]["required"].append("count")),
    "a value less": ("change", lambda s: members(s)["origin"]["enum"].remove("backfill")),
    "never null any more": ("change", lambda s: members(s).update(command_id={"type": "string"})),
    "a narrower bound": ("change", lambda s: members(s)["version"].update(minimum=2)),
    "a word more": ("change", lambda s: s.update(description="Told better.")),
}
HARMLESS_TO_WRITERS: Mapping[str, Change] = {
    "a member more": ("command", lambda s: members(s).update(colour={"type": "string"})),
    "a value more": ("command", lambda s: members(s)["on_conflict"]["anyOf"][0]["enum"].append("ask")),
    "a wider bound": ("command", lambda s: members(s)["sender"]["anyOf"][0].update(maxLength=1000)),
    "a wider type": ("query", lambda s: members(s, "ListQuery")["limit"]["anyOf"].append({"type": "string"})),
}


@pytest.mark.parametrize("change", BREAKS_READERS.values(), ids=BREAKS_READERS)
def test_what_breaks_a_reader_is_found(change: Change) -> None:
    """Somebody who was written for what is published now could not read it."""
    assert misfits(changed(*change), NOW[change[0]]) != []


@pytest.mark.parametrize("change", BREAKS_WRITERS.values(), ids=BREAKS_WRITERS)
def test_what_breaks_a_writer_is_found(change: Change) -> None:
    """Something that is accepted now would be refused."""
    assert misfits(NOW[change[0]], changed(*change)) != []


@pytest.mark.parametrize("change", HARMLESS_TO_READERS.values(), ids=HARMLESS_TO_READERS)
def test_what_a_reader_does_not_mind_is_let_pass(change: Change) -> None:
    """Else every release would be a breaking one."""
    assert misfits(changed(*change), NOW[change[0]]) == []


@pytest.mark.parametrize("change", HARMLESS_TO_WRITERS.values(), ids=HARMLESS_TO_WRITERS)
def test_what_a_writer_does_not_mind_is_let_pass(change: Change) -> None:
    """Likewise."""
    assert misfits(NOW[change[0]], changed(*change)) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_fits_itself(name: str) -> None:
    """Every keyword in use is one that is compared."""
    assert misfits(NOW[name], NOW[name]) == []
