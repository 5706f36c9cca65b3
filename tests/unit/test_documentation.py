"""What the documents say is what the code does: topics, commands, settings, log events, exit codes, targets, links."""

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from connector.cli import doctor, outcome
from connector.cli.main import cli
from connector.cli.outcome import FAILED, NO_BROKER, NO_ORG, WRONG_USAGE, exit_code
from connector.errors import BrokerDown, ConfigError, LinkDown, LoginRefused, PoisonError
from connector.inbound.settle import DELETION_FLOOR, DELETION_SHARE
from connector.mesh.topics import Incoming, Topics
from connector.model.where import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES
from connector.outbound.payload import CommandPayload
from connector.reference import reference
from connector.schemas import asyncapi, schemas
from connector.schemas.messages import MESSAGES
from connector.serve import control
from connector.serve.control_payload import CONTROLS
from connector.serve.query import queries
from connector.serve.query.answer import PAGE_BYTES
from connector.settings import Secrets, Settings
from connector.store.troubles import MAX_QUARANTINED
from tests.documents import DOCUMENTS, GUIDES, ROOT, shell_lines, shown_commands, spans

README = ROOT / "README.md"
EVENTS = ROOT / "docs" / "events.md"
TOPICS = ROOT / "docs" / "topics.md"
COMMAND_LINE = ROOT / "docs" / "command-line.md"
EXIT_CODES = {name: value for name, value in vars(outcome).items() if isinstance(value, int)}
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def section(path: Path, title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    return text_of(path).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, headings left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    headings = {text.splitlines()[i - 1] for i, line in enumerate(text.splitlines()) if line.startswith("|---")}
    return [row for line, row in zip(lines, cells, strict=True) if line not in headings]


# --- Log events ---------------------------------------------------------------------------------------------------


@cache
def logged() -> Mapping[str, set[str]]:
    """Event name -> its levels, of every logging call outside the local org, which has a log of its own."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "connector").rglob("*.py")):
        if "devorg" in path.relative_to(ROOT).parts:
            continue
        for name, level in _logging_calls(ast.parse(text_of(path)), path):
            found.setdefault(name, set()).add(level)
    return found


def _logging_calls(tree: ast.Module, path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Attribute(ast.Name("log"), level), [event, *_]) if level in LEVELS:
                choices = [event.body, event.orelse] if isinstance(event, ast.IfExp) else [event]
                for choice in choices:
                    assert isinstance(choice, ast.Constant), f"{path}:{node.lineno}: a log event's name is a constant"
                    yield str(choice.value), LEVELS[level]


def test_every_log_event_is_documented_with_its_level() -> None:
    """docs/events.md lists what the code logs, and nothing else."""
    documented = {name.strip("`"): set(levels.split(", ")) for name, levels, _ in rows(text_of(EVENTS))}
    assert documented == logged()
    assert all(meaning for _, _, meaning in rows(text_of(EVENTS)))


def test_log_events_are_named_by_stage_and_what_happened() -> None:
    """One form, so that a log can be searched by stage."""
    assert [name for name in logged() if not re.fullmatch(r"[a-z]+\.[a-z0-9_]+", name)] == []


# --- Topics and messages ------------------------------------------------------------------------------------------


def topic_table() -> str:
    """Of docs/topics.md."""
    return text_of(TOPICS).partition("\n## ")[0]


# What a topic is made of, as the table has it.
PARTS = {
    "object_name": "{Object}",
    "operation": "{operation}",
    "record_id": "{Id}",
    "verb": "{verb}",
    "command_id": "{command_id}",
    "node": "{node}",
    "client_id": "{client}",
}


def built_topics() -> dict[str, str]:
    """What each method and property of `Topics` builds that builds one."""
    topics, found = Topics(root="{root}"), {}
    for name, member in vars(Topics).items():
        builds = member.fget if isinstance(member, property) else member
        if (
            name.startswith("_")
            or not inspect.isfunction(builds)
            or inspect.signature(builds).return_annotation is not str
        ):
            continue
        words = [word for word in inspect.signature(builds).parameters if word != "self"]
        # Of a form that the checks of a verb and of an id let pass.
        placed = {word.replace("_", ""): PARTS[word] for word in words}
        built = builds(topics, *placed)
        built = "/".join(placed.get(level, level) for level in built.split("/"))
        found[name] = built
    return found


def test_the_table_of_topics_is_that_of_the_code() -> None:
    """Built topics and understood topics, each once; but for a filter and a part of the replies."""
    built = built_topics()
    assert built.pop("changes") == "{root}/change/#"
    assert built.pop("inbox") == "{root}/reply/{client}"
    cells = [span for row in rows(topic_table()) for span in spans(row[0])]
    assert sorted(cells) == sorted(built.values())
    interface = rows(section(ROOT / "docs" / "interface.md", "1. Topics"))
    assert sorted(span for row in interface for span in spans(row[0])) == sorted(cells)
    topics = Topics(root="{root}")
    assert topics.parse("{root}/command/Contact/update") == Incoming("command", "Contact", "update")
    assert topics.parse("{root}/control/sync") == Incoming("control", "", "sync")


def test_the_table_of_topics_agrees_with_the_asyncapi_document() -> None:
    """What is retained, and by which schema each message goes."""
    channels = {c["address"]: (name, c) for name, c in asyncapi(Topics(root="{root}"), {})["channels"].items()}
    operations = asyncapi(Topics(root="{root}"), {})["operations"].values()
    for topic, who, _, links in rows(topic_table()):
        name, channel = channels[topic.strip("`")]
        retained = any(
            o["bindings"]["mqtt"]["retain"] for o in operations if o["channel"]["$ref"] == f"#/channels/{name}"
        )
        assert ("retained" in who or "`mqtt.retain_records`" in who) == retained, topic
        documents = {MESSAGES[message].document for message in channel["messages"]} - {None}
        assert documents <= set(re.findall(r"schemas/(\w+)\.json", links)), topic


def test_the_operations_and_verbs_of_a_topic_are_those_that_are_served() -> None:
    """What a service may write in the last level of a topic."""
    table = {row[0]: set(spans(row[2])) for row in rows(topic_table())}
    topics = Topics()
    commands = table["`{root}/command/{Object}/{operation}`"]
    assert commands == {"create", "update", "upsert", "delete"}
    assert all(topics.parse(f"{topics.root}/command/Contact/{operation}") for operation in commands)
    assert table["`{root}/control/{verb}`"] == CONTROLS.keys()


def test_the_command_that_is_shown_is_a_valid_one() -> None:
    """Whoever copies the `mosquitto_pub` line gets a result, not a rejection."""
    (line,) = [line for line in shell_lines(README) if line.startswith("mosquitto_pub")]
    words = shlex.split(line)
    option = dict(zip(words[1::2], words[2::2], strict=True))
    assert Topics().parse(option["-t"]) == Incoming("command", "Contact", "update")
    assert option["-q"] == "1"
    CommandPayload.model_validate(json.loads(option["-m"]))


# --- The command line ---------------------------------------------------------------------------------------------


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command by its words, and those of its subcommands."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


def test_the_table_of_commands_is_that_of_the_program() -> None:
    """Each with its arguments."""
    documented = {span for row in rows(text_of(COMMAND_LINE).partition("## Exit codes")[0]) for span in spans(row[0])}
    assert documented == {_usage(words[0], command) for words, command in commands(cli) if len(words) == 1}


def _usage(name: str, command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    metavars = [p.make_metavar(click.Context(command)) for p in arguments]
    return " ".join([name, *metavars]).replace("...", "…")


@pytest.mark.parametrize("words", [words for words, _ in commands(cli)], ids=" ".join)
def test_every_command_tells_how_it_is_used(words: tuple[str, ...]) -> None:
    """`--help` works without settings, org and broker, and says what the command does."""
    result = CliRunner().invoke(cli, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert len(result.output.splitlines()) > 3


def test_reads_and_lists_take_json() -> None:
    """As docs/command-line.md says."""
    assert "Reads and lists take `--json`" in text_of(COMMAND_LINE)
    for name in ("list", "get", "search", "status"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert "--json" in {option for param in command.params for option in param.opts}


def test_exit_codes() -> None:
    """Documented by number, and given by the error's class."""
    documented = [int(code) for code, _ in rows(section(COMMAND_LINE, "Exit codes"))]
    assert documented == [0, *EXIT_CODES.values()]
    errors = (PoisonError("x"), ConfigError("x"), LinkDown("x"), LoginRefused("x"), BrokerDown("x"))
    assert [exit_code(error) for error in errors] == [FAILED, WRONG_USAGE, NO_ORG, NO_ORG, NO_BROKER]


def test_no_command_ends_with_a_code_of_its_own() -> None:
    """Only by the constants that are documented, or by a function that answers with one of them."""
    for path in sorted((ROOT / "connector" / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(text_of(path))):
            match node:
                case ast.Call(ast.Attribute(ast.Name("sys"), "exit") | ast.Attribute(_, "exit"), [argument]):
                    codes = [argument]
                case ast.Assign([ast.Name("exit_code")], value):
                    codes = [value]
                case _:
                    continue
            for code in codes:
                named = isinstance(code, ast.Name) and code.id in EXIT_CODES
                asked = isinstance(code, ast.Call) and isinstance(code.func, ast.Name) and "exit_code" in code.func.id
                assert named or asked, f"{path}:{code.lineno}: {ast.unparse(code)}"
    assert set(doctor.EXIT_CODES.values()) <= set(EXIT_CODES.values())


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_line_that_is_shown_can_be_typed(line: str) -> None:
    """Its command and its options are there, and its arguments are of the right kind."""
    _parse(cli, "salesforce-sync", shlex.split(line, comments=True)[1:])


def _parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    try:
        context = command.make_context(name, words, parent=parent)
    except click.exceptions.Exit:  # --help, --version
        return
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group) and rest:
        found, sub, following = command.resolve_command(context, rest)
        assert found is not None
        assert sub is not None
        _parse(sub, found, following, context)


# --- Settings, targets, files ---------------------------------------------------------------------------------------


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{prefix}{name}.")


def _members(schema: Mapping[str, Any], part: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
    for name, inner in part.get("properties", {}).items():
        yield prefix + name
        yield from _members(schema, inner, f"{prefix}{name}.")


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dotted_names_are_settings_health_members_events_or_files(path: Path) -> None:
    """A key that was renamed is renamed in the documents as well."""
    health = schemas()["health"]
    python = {"record.id", "record.meta", "record.meta.pending"}  # attributes of the Python client's records
    known = {*_keys(Settings), *_members(health, health), *logged(), "commit.timestamp", *python}
    dotted = {span for span in spans(text_of(path)) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span)}
    assert {name for name in dotted - known if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_environment_variables_are_those_that_are_read(path: Path) -> None:
    """Secrets by their names, settings by section and key."""
    text = text_of(path)
    secrets = {name.upper() for name in Secrets.model_fields}
    assert set(re.findall(r"\b(?:SF|MQTT)_[A-Z_]+\b", text)) <= secrets
    variables = re.findall(r"\bSALESFORCE_SYNC_([A-Z]+__[A-Z_]+)\b", text)
    named = {name.lower().replace("__", ".") for name in variables if name != "SECTION__KEY"}  # the pattern itself
    assert named <= set(_keys(Settings))


def test_every_target_that_is_shown_is_in_the_makefile() -> None:
    """`make demo` and the like."""
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    shown = {
        word
        for path in DOCUMENTS
        for line in [*shell_lines(path), *spans(text_of(path))]
        if line.startswith("make ")
        for word in line.split()[1:2]
    }
    assert {"demo", "test", "help"} <= shown <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_and_named_files_exist(path: Path) -> None:
    """Links are relative to the document, named paths to the repository."""
    text = text_of(path)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (path.parent / link).exists()] == []
    named = [s for s in spans(text) if re.fullmatch(r"(?:connector|tests|docs|schemas|deploy|\.ci)/[\w./-]*", s)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_guide_can_be_reached_from_the_readme() -> None:
    """A document that nobody is led to is not there."""
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(README))
    guides = {str(path.relative_to(ROOT)) for path in [*GUIDES, ROOT / "CONTRIBUTING.md"]}
    assert guides - {"README.md"} <= set(links)


def test_the_reference_of_the_settings_is_that_of_the_model() -> None:
    """After a change of a setting: `make schemas`. Every key says what it means."""
    assert text_of(ROOT / "docs" / "settings.md") == reference()
    assert [row for row in rows(reference()) if row[-1] in ("", "None")] == []
    keys = {span for row in rows(reference()) for span in spans(row[0])}
    assert {key for key in _keys(Settings) if "." in key and not key.startswith("secrets.")} <= keys


def test_the_limits_are_those_of_the_code() -> None:
    """Each number of the table, where it is a constant."""
    limits = {row[0]: row[1] for row in rows(section(ROOT / "docs" / "limits.md", "Numbers"))}
    page = f"`query.max_page` records, {PAGE_BYTES // 1024} KiB"
    assert limits["a page of a query's reply"] == page
    conditions = f"{MAX_CONDITIONS} comparisons, {MAX_DEPTH} levels, {MAX_VALUES} values in a list"
    assert limits["a condition"] == conditions
    assert limits["queries"].startswith(f"{queries.WORKERS} at once, {queries.MAX_WAITING} waiting")
    assert limits["requests `sync` and `verify`"] == f"{control.MAX_WAITING} waiting"
    assert limits["quarantined events"] == f"{MAX_QUARANTINED:,}"
    assert limits["deletions that a comparison makes by itself"].endswith(f"or {DELETION_FLOOR}")
    assert DELETION_SHARE == 0.1
    assert limits["a message from the mesh"] == f"`mqtt.max_payload`, {Settings().mqtt.max_payload // 1024} KiB"


def test_every_test_that_is_shown_is_there() -> None:
    """Paths behind `pytest`."""
    lines = [line for path in DOCUMENTS for line in shell_lines(path) if "bin/pytest" in line]
    paths = [word for line in lines for word in shlex.split(line, comments=True) if word.startswith("tests/")]
    assert len(paths) > 3
    assert [path for path in paths if not (ROOT / path).exists()] == []
