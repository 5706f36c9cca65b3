"""Which objects are selected for Change Data Capture in a channel, and selecting them: the Tooling API.

Source: Tooling API Developer Guide, "PlatformEventChannelMember"; Change Data Capture Developer Guide, "Subscription
Channels", "Select Objects for Change Notifications with Metadata API and Tooling API".
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from connector.errors import LinkDown, OrgRefused
from connector.ports import Purpose
from connector.salesforce.answers import content, problems_of
from connector.salesforce.budget import ApiBudget
from connector.salesforce.login import Session
from connector.salesforce.transport import Request, Transport

STANDARD_CHANNEL = "ChangeEvents"

_MEMBER = "PlatformEventChannelMember"
# An org has a few hundred objects that can be selected; one page holds 2,000 members.
_MEMBERS_QUERY = f"SELECT Id, DeveloperName, EventChannel, SelectedEntity FROM {_MEMBER} LIMIT 2000"  # noqa: S608 - SOQL
_CUSTOM_CHANNEL, _CUSTOM_OBJECT, _EVENT = "__chn", "__c", "ChangeEvent"


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as it is subscribed to.

    Attributes:
        path: For instance `/data/ChangeEvents`.
    """

    path: str

    @property
    def name(self) -> str:
        """The channel whose members decide: that of one object carries what the standard channel has."""
        last = self.path.removeprefix("/data/")
        return last if last.endswith(_CUSTOM_CHANNEL) else STANDARD_CHANNEL

    def carries(self, object_name: str) -> bool:
        """False for every other object on the channel of a single one."""
        last = self.path.removeprefix("/data/")
        return last == self.name or last == event_name(object_name)


def event_name(object_name: str) -> str:
    """API name of an object's change event: `AccountChangeEvent`, `Invoice__ChangeEvent`."""
    if object_name.endswith(_CUSTOM_OBJECT):
        return object_name.removesuffix("c") + _EVENT
    return object_name + _EVENT


def developer_name(channel: str, event: str) -> str:
    """Name of an event's membership in a channel; it must not hold two underscores in a row."""
    return f"{channel}_{event}".replace("__", "_")


class ChannelSelection:
    """Asks for and changes the members of one channel; `async with` opens and closes it.

    Args:
        session: Gives the token.
        budget: Grants and counts each call.
        channel: The channel that is subscribed to.
        api_version: 47.0 or later.
        timeout_s: Of the connection and of each wait for an answer.
    """

    def __init__(
        self, session: Session, budget: ApiBudget, channel: Channel, *, api_version: str, timeout_s: float
    ) -> None:
        self._transport = Transport(session, budget, api_version=api_version, timeout_s=timeout_s)
        self._channel = channel

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def selected(self, objects: Collection[str], purpose: Purpose) -> frozenset[str]:
        """Those of the objects that are selected; one API call. Needs "View Setup and Configuration".

        Raises:
            OrgRefused: The user may not ask.
            TransientError, LoginRefused: As `OrgClient`.
        """
        request = Request(method="GET", path="tooling/query", purpose=purpose, params={"q": _MEMBERS_QUERY})
        answer = content(await self._transport.send(request))
        records = answer.get("records") if isinstance(answer, dict) else None
        if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
            raise LinkDown("the selection's answer has another shape")
        return frozenset(name for name in objects if any(self._is_of(row, event_name(name)) for row in records))

    async def select(self, object_name: str, purpose: Purpose) -> None:
        """Select an object; one API call. Needs "Customize Application".

        Raises:
            OrgRefused: The user may not, or the object has no change events.
            OrgThrottled: The org has no room for one more, too.
            TransientError, LoginRefused: As `OrgClient`; after LinkDown it may be selected all the same.
        """
        event, channel = event_name(object_name), self._channel.name
        body = {
            "FullName": developer_name(channel, event),
            "Metadata": {"eventChannel": channel, "selectedEntity": event},
        }
        request = Request(method="POST", path=f"tooling/sobjects/{_MEMBER}", purpose=purpose, json=body)
        reply = await self._transport.send(request)
        answer = content(reply, write=True)
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise OrgRefused(reply.status, problems_of(answer.get("errors") if isinstance(answer, dict) else answer))

    def _is_of(self, row: Mapping[str, Any], event: str) -> bool:
        """True if the row is the event's membership.

        Custom objects and channels may be told by opaque ids, developer names may be chosen freely: either will do.
        """
        channel = self._channel.name
        by_name = row.get("EventChannel") == channel and row.get("SelectedEntity") == event
        return by_name or row.get("DeveloperName") == developer_name(channel, event)
