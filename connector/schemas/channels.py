"""Every topic as a channel: its address as `mesh.topics` builds it, what is sent and taken there, who answers where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from connector.mesh.topics import COMMAND_OPERATIONS, QUERY_VERBS, Topics
from connector.model.ids import RecordId
from connector.schemas.messages import MESSAGES
from connector.serve.control_payload import CONTROLS


@dataclass(frozen=True, slots=True)
class Parameter:
    """A level of a topic that varies; `values` empty: anything of its form."""

    description: str
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What answers a message: the channel, and where its address stands if it is the asker's to choose."""

    channel: str
    description: str | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the connector does on a channel.

    Attributes:
        messages: Empty: every one of the channel.
    """

    name: str
    action: Literal["send", "receive"]
    summary: str
    retain: bool = False
    messages: Sequence[str] = ()
    reply: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One topic, or a family of them.

    Attributes:
        address: None where the asker chooses it.
        messages: Names of `MESSAGES`.
    """

    address: str | None
    description: str
    messages: Sequence[str]
    operations: Sequence[Operation] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


_ID = Parameter("Salesforce id, 18 characters.")
_ASKED = (
    "The MQTT 5 Response Topic, else `reply_to` in the payload. Not inside the root (but below `reply/`), not inside "
    "`blackroad/signals`, not beginning with `$`, without wildcards."
)
_RESPONSE_TOPIC = "$message.header#/responseTopic"


def channels(topics: Topics, objects: Sequence[str]) -> dict[str, Channel]:
    """Name -> channel, of an installation that syncs `objects` (none: not told)."""
    one = Parameter("The object's API name, as Salesforce spells it.", objects)
    return {
        **_changes(topics, one),
        **_commands(topics, one),
        **_queries(topics, one),
        **_controls(topics),
        **_states(topics, one),
        **_signals(topics),
    }


def _changes(topics: Topics, one: Parameter) -> dict[str, Channel]:
    operation = Parameter("What happened.", ("create", "update", "delete", "undelete"))
    return {
        "change": Channel(
            address=topics.change("{Object}", "{operation}", RecordId("{Id}")),
            description="Every change of a record, in the order of `data.version`, which has no holes.",
            messages=("change",),
            parameters={"Object": one, "operation": operation, "Id": _ID},
            operations=(Operation(name="publishChange", action="send", summary="Tell a change."),),
        ),
        "record": Channel(
            address=topics.record("{Object}", RecordId("{Id}")),
            description="Records as they stand, with `mqtt.retain_records` alone.",
            messages=("record", "empty"),
            parameters={"Object": one, "Id": _ID},
            operations=(
                Operation(
                    name="publishRecord", action="send", retain=True, summary="Keep a record's last state there."
                ),
            ),
        ),
    }


def _commands(topics: Topics, one: Parameter) -> dict[str, Channel]:
    return {
        "command": Channel(
            address=topics.command("{Object}", "{operation}"),
            description="Requests to write to the org; acknowledged once on disk. Never retained.",
            messages=("command",),
            parameters={"Object": one, "operation": Parameter("What to do.", COMMAND_OPERATIONS)},
            operations=(
                Operation(
                    name="takeCommand",
                    action="receive",
                    summary="Write to the org. Answered on the result's topic, and where the sender asked for.",
                    reply=Answer("answerToCommand", _ASKED, _RESPONSE_TOPIC),
                ),
            ),
        ),
        "answerToCommand": _asked("Where a command's sender wants its result, too.", "result"),
        "result": Channel(
            address=_with(topics.result("command_id"), "command_id"),
            description="`accepted`, then how it ended.",
            messages=("result",),
            parameters={"command_id": Parameter("The command's id: A-Z a-z 0-9 . _ : -, 1 to 128 characters.")},
            operations=(Operation(name="publishResult", action="send", summary="Tell what became of a command."),),
        ),
    }


def _queries(topics: Topics, one: Parameter) -> dict[str, Channel]:
    objects = (*one.values, "_all") if one.values else ()
    subject = Parameter(f"{one.description} `_all` for `changes` and `describe`.", objects)
    return {
        "query": Channel(
            address=topics.query("{Object}", "{verb}"),
            description="Questions to the replica, at no API call. A reply address is needed. Never retained.",
            messages=tuple(f"query_{verb}" for verb in QUERY_VERBS),
            parameters={"Object": subject, "verb": Parameter("What is asked.", QUERY_VERBS)},
            operations=(
                Operation(
                    name="answerQuery",
                    action="receive",
                    summary="Answer from the replica.",
                    reply=Answer("answerToQuery", _ASKED, _RESPONSE_TOPIC),
                ),
            ),
        ),
        "answerToQuery": _asked("Where a query's sender wants the reply.", "query_reply"),
    }


def _controls(topics: Topics) -> dict[str, Channel]:
    verb = Parameter("What is asked for.", tuple(CONTROLS))
    otherwise = f"{_ASKED} Without either: `{_with(topics.reply('verb'), 'verb')}`."
    return {
        "control": Channel(
            address=topics.control("{verb}"),
            description="For operators. `sync` and `verify` are answered twice. Never retained.",
            messages=tuple(f"control_{name}" for name in CONTROLS),
            parameters={"verb": verb},
            operations=(
                Operation(
                    name="takeControl",
                    action="receive",
                    summary="Do it.",
                    reply=Answer("answerToControl", otherwise, _RESPONSE_TOPIC),
                ),
            ),
        ),
        "answerToControl": _asked("Where a control message's sender wants the reply.", "reply"),
        "reply": Channel(
            address=_with(topics.reply("verb"), "verb"),
            description="Replies to control messages that named no reply address.",
            messages=("reply", "empty"),
            parameters={"verb": verb},
            operations=(
                Operation(
                    name="publishReply", action="send", messages=("reply",), summary="Answer who named no address."
                ),
                Operation(name="tryBroker", action="send", messages=("empty",), summary="`doctor` tries its rights."),
            ),
        ),
    }


def _states(topics: Topics, one: Parameter) -> dict[str, Channel]:
    return {
        "status": _kept(topics.status, "status", "Online or offline; also the last will."),
        "health": _kept(topics.health, "health", "The health document, at intervals and on a change of state."),
        "mirror": Channel(
            address=topics.mirror("{node}"),
            description="How a mirror is; also its last will.",
            messages=("mirror",),
            parameters={"node": Parameter("`node.name` of the mirror.")},
            operations=(Operation(name="publishMirror", action="send", retain=True, summary="Sent by each mirror."),),
        ),
        "hole": Channel(
            address=topics.hole("{Object}"),
            description="Intervals in which the replica may differ from the org; retained while open.",
            messages=("hole", "empty"),
            parameters={"Object": one},
            operations=(
                Operation(name="openHole", action="send", retain=True, summary="Open one, or clear what was retained."),
                Operation(name="closeHole", action="send", messages=("hole",), summary="Tell that it is closed."),
            ),
        ),
        "rejected": Channel(
            address=topics.rejected,
            description="Messages that could not be accepted and named no usable reply address.",
            messages=("rejected",),
            operations=(Operation(name="publishRejected", action="send", summary="Tell what was wrong."),),
        ),
    }


def _signals(topics: Topics) -> dict[str, Channel]:
    return {
        "signalsOut": Channel(
            address=topics.signals_out,
            description="BlackRoad signals from this node.",
            messages=("signal",),
            operations=(Operation(name="publishSignal", action="send", summary="Signal to the operating system."),),
        ),
        "signalsIn": Channel(
            address=topics.signals_in,
            description="BlackRoad signals to this node. Retained ones are ignored.",
            messages=("signal_in", "signal"),
            operations=(Operation(name="takeSignal", action="receive", summary="Catch up, if it asks for that."),),
        ),
    }


def _asked(description: str, message: str) -> Channel:
    return Channel(address=None, description=description, messages=(message,))


def _kept(address: str, message: str, description: str) -> Channel:
    name = f"publish{message.capitalize()}"
    kept = Operation(name=name, action="send", retain=True, summary=MESSAGES[message].title)
    return Channel(address=address, description=description, messages=(message,), operations=(kept,))


def _with(address: str, parameter: str) -> str:
    """The address with its last level as a parameter."""
    return f"{address.removesuffix(parameter)}{{{parameter}}}"
