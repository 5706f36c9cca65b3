"""Every topic of the interface: built, parsed, and the rule which reply addresses may be used. Pure."""

import re
from dataclasses import dataclass
from typing import Literal

from connector.model.ids import RecordId

SIGNAL_ROOT = "blackroad/signals"
MAX_REPLY_ADDRESS_CHARS = 1024
COMMAND_OPERATIONS = ("create", "update", "upsert", "delete")
QUERY_VERBS = ("get", "list", "search", "count", "changes", "describe")

_OBJECT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}", re.ASCII)
_VERB = re.compile(r"[a-z_]{1,32}", re.ASCII)
_COMMAND_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
# MQTT allows these in a topic name, but brokers may drop the connection for them: MQTT 5 section 1.5.4.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a topic that we subscribe to says.

    Attributes:
        subject: The object's name; empty for the others.
        verb: Operation of a command, verb of a query or control message; else empty.
    """

    kind: Literal["command", "query", "control", "signal", "status"]
    subject: str = ""
    verb: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The topics below one root.

    Attributes:
        root: `mqtt.root`, without a slash at either end.
        org_code: Our code in signals.
        target: Whom we send signals to and take them from.
    """

    root: str = "blackroad/salesforce"
    org_code: str = "FND"
    target: str = "OS"

    @property
    def status(self) -> str:
        """Birth, will and last message."""
        return f"{self.root}/status"

    @property
    def health(self) -> str:
        """The health document."""
        return f"{self.root}/health"

    @property
    def rejected(self) -> str:
        """Messages that could not be accepted and named no usable reply address."""
        return f"{self.root}/rejected"

    @property
    def signals_out(self) -> str:
        """Signals from us."""
        return f"{SIGNAL_ROOT}/{self.org_code}/{self.target}"

    @property
    def signals_in(self) -> str:
        """Signals to us."""
        return f"{SIGNAL_ROOT}/{self.target}/{self.org_code}"

    @property
    def changes(self) -> str:
        """The filter of all changes."""
        return f"{self.root}/change/#"

    def command(self, object_name: str, operation: str) -> str:
        """A command."""
        return f"{self.root}/command/{object_name}/{operation}"

    def control(self, verb: str) -> str:
        """A control message."""
        return f"{self.root}/control/{verb}"

    def query(self, object_name: str, verb: str) -> str:
        """A query."""
        return f"{self.root}/query/{object_name}/{verb}"

    def inbox(self, client_id: str) -> str:
        """Where the replies to a client of ours go."""
        return f"{self.root}/reply/{client_id}"

    def mirror(self, node: str) -> str:
        """How a mirror is."""
        return f"{self.root}/mirror/{node}"

    def change(self, object_name: str, operation: str, record_id: RecordId) -> str:
        """A change."""
        return f"{self.root}/change/{object_name}/{operation}/{record_id}"

    def record(self, object_name: str, record_id: RecordId) -> str:
        """A record as it stands now."""
        return f"{self.root}/record/{object_name}/{record_id}"

    def hole(self, object_name: str) -> str:
        """A hole in an object's history."""
        return f"{self.root}/hole/{object_name}"

    def result(self, command_id: str) -> str:
        """A command's result.

        Raises:
            ValueError: The id does not have the contract's form and could leave the topic.
        """
        if not is_command_id(command_id):
            raise ValueError("a command id has 1 to 128 characters out of A-Z a-z 0-9 . _ : -")
        return f"{self.root}/result/{command_id}"

    def reply(self, verb: str) -> str:
        """The reply to a control message that named no reply address."""
        return f"{self.root}/reply/{verb if _VERB.fullmatch(verb) else 'unknown'}"

    def subscriptions(self) -> tuple[str, ...]:
        """Filters to subscribe to; wide ones, so that a malformed topic is answered instead of lost."""
        return (
            f"{self.root}/command/#",
            f"{self.root}/query/#",
            f"{self.root}/control/#",
            self.signals_in,
            self.status,
        )

    def parse(self, topic: str) -> Incoming | None:
        """What a received topic says; None if it has no meaning in the contract."""
        if topic in (self.signals_in, self.status):
            return Incoming("status" if topic == self.status else "signal")
        if not topic.startswith(self.root + "/"):
            return None
        match topic[len(self.root) + 1 :].split("/"):
            case ["command", name, operation] if _OBJECT.fullmatch(name) and operation in COMMAND_OPERATIONS:
                return Incoming("command", name, operation)
            case ["query", name, verb] if verb in QUERY_VERBS and _queried(name, verb):
                return Incoming("query", name, verb)
            case ["control", verb] if _VERB.fullmatch(verb):
                return Incoming("control", "", verb)
            case _:
                return None

    def reply_problem(self, address: str) -> str | None:
        """Why we must not publish to a reply address, or None if we may; section 1 of the interface.

        The connector may publish where the asker may not: an address must not reach topics that others trust.
        """
        rules = (
            (not address, "is empty"),
            (_CONTROL_CHARACTERS.search(address) is not None, "holds a control character"),
            ("+" in address or "#" in address, "holds a wildcard"),
            (len(address) > MAX_REPLY_ADDRESS_CHARS, f"has more than {MAX_REPLY_ADDRESS_CHARS} characters"),
            (address.startswith("$"), "begins with $"),
            (_inside(address, SIGNAL_ROOT), f"is inside {SIGNAL_ROOT}"),
            (
                _inside(address, self.root) and not address.startswith(f"{self.root}/reply/"),
                f"is inside {self.root} but not below {self.root}/reply/",
            ),
        )
        return next((f"the reply address {problem}" for broken, problem in rules if broken), None)


def is_command_id(text: str) -> bool:
    """True if the text has the contract's form of a command id, which is safe as one level of a topic."""
    return _COMMAND_ID.fullmatch(text) is not None


def _queried(name: str, verb: str) -> bool:
    return _OBJECT.fullmatch(name) is not None or (name == "_all" and verb in ("changes", "describe"))


def _inside(address: str, root: str) -> bool:
    return address == root or address.startswith(root + "/")
