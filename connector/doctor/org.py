"""What can be asked of the org: the way there, its clock, login, API budget, objects, selected events.

Costs, besides the login, two API calls and one for each object; selecting an object costs one more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from connector.doctor.findings import Finding, listed, reason
from connector.doctor.objects import object_findings
from connector.errors import ConfigError, LoginRefused, OrgRefused, OrgThrottled, TransientError
from connector.ports import Purpose
from connector.salesforce.budget import ApiBudget
from connector.salesforce.login import Session
from connector.salesforce.reach import reach
from connector.salesforce.rest import RestClient
from connector.salesforce.selection import Channel, ChannelSelection
from connector.settings import LimitSettings, Settings

MOST_SKEW_S = 30

_LATER = "try again later"
_NETWORK = "check salesforce.instance_url, the network and, at status.salesforce.com, the org"
_SETUP = "Setup > Change Data Capture"
_BY_HAND = f"`salesforce-sync doctor --fix` selects it, or select it in {_SETUP}"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrgDoors:
    """The doors to the org, opened.

    Attributes:
        replica_org_id: The org whose records the replica holds; None if it holds none.
    """

    settings: Settings
    session: Session
    budget: ApiBudget
    rest: RestClient
    selection: ChannelSelection
    replica_org_id: str | None


class NotLoggedIn(Exception):
    """Nothing more can be asked of the org.

    Attributes:
        finding: Why.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


async def way_there(settings: Settings, now_ms: Callable[[], int]) -> list[Finding]:
    """Does an org answer, does it speak our API version, do the two clocks agree?"""
    salesforce = settings.salesforce
    before_ms = now_ms()
    try:
        reached = await reach(salesforce.instance_url, salesforce.timeout.total_seconds())
    except TransientError as error:
        return [Finding("org", "fail", f"{salesforce.instance_url}: {error}", _NETWORK)]
    found = [Finding("org", "ok", f"{salesforce.instance_url} answers and speaks API {salesforce.api_version}")]
    if salesforce.api_version not in reached.versions:
        spoken = f"{reached.versions[0]} to {reached.versions[-1]}" if reached.versions else "none"
        message = f"salesforce.api_version = {salesforce.api_version!r}: the org speaks {spoken}"
        found = [Finding("org", "fail", message, "set one of them")]
    # The org's clock was read some time between question and answer, and is told in whole seconds.
    skew_s = round((reached.server_ms - (before_ms + now_ms()) / 2) / 1000)
    return [*found, clock(skew_s)]


def clock(skew_s: int) -> Finding:
    """Is this machine's clock right? `skew_s` is how far the org's is ahead of it."""
    if abs(skew_s) <= MOST_SKEW_S:
        return Finding("clock", "ok", f"within {MOST_SKEW_S} s of the org's")
    side = "behind" if skew_s > 0 else "ahead of"
    message = f"this machine's clock is {abs(skew_s):,} s {side} the org's; logins by JWT may fail"
    return Finding("clock", "warn", message, "synchronise it: timedatectl set-ntp true")


async def login(doors: OrgDoors) -> list[Finding]:
    """Log in; then the org's limits, which prove a token that was given rather than asked for.

    Raises:
        NotLoggedIn: It did not work.
    """
    flow = doors.settings.auth_flow()
    token = await _logged_in(doors.session.token())
    api = await _api(doors)
    found = [Finding("login", "ok", f"{flow} to org {token.org_id} at {token.instance_url}")]
    if flow == "access_token":
        mend = "give the secrets of another login flow to a daemon"
        found = [Finding("login", "warn", f"{found[0].message}; the token cannot be renewed when it expires", mend)]
    known = doors.replica_org_id
    if known is not None and known != token.org_id:
        message = f"the replica holds org {known}, the login is of org {token.org_id}"
        found.append(Finding("replica", "fail", message, "set another storage.path, or log in to the replica's org"))
    elif known is not None:
        found.append(Finding("replica", "ok", "its records are of this org"))
    return [*found, *api]


async def _logged_in(answer: Awaitable[T]) -> T:
    """The answer.

    Raises:
        NotLoggedIn: The credentials do not open the org.
    """
    try:
        return await answer
    except ConfigError as error:
        raise NotLoggedIn(Finding("settings", "fail", str(error), "name a key file that this user can read")) from error
    except LoginRefused as error:
        raise NotLoggedIn(Finding("login", "fail", str(error))) from error
    except TransientError as error:
        mend = _LATER if isinstance(error, OrgThrottled) else "check salesforce.login_url and the network"
        raise NotLoggedIn(Finding("login", "fail", str(error), mend)) from error


async def _api(doors: OrgDoors) -> list[Finding]:
    document: Mapping[str, Any] = {}
    trouble: list[Finding] = []
    try:
        document = await doors.rest.limits(Purpose.VERIFY)
    except LoginRefused as error:
        raise NotLoggedIn(Finding("login", "fail", str(error))) from error
    except OrgRefused as error:
        mend = 'give the user "View Setup and Configuration"'
        trouble = [Finding("api", "warn", f"the org does not tell its limits: {reason(error)}", mend)]
    except OrgThrottled as error:
        snapshot = doors.budget.snapshot()
        spent = snapshot["used"] >= snapshot["max"]
        trouble = [Finding("api", "fail" if spent else "warn", str(error), _LATER)]
    except TransientError as error:
        trouble = [Finding("api", "fail", str(error), _LATER)]
    return api_findings(document, doors.budget.snapshot(), doors.settings.limits) or trouble


def api_findings(document: Mapping[str, Any], snapshot: Mapping[str, Any], limits: LimitSettings) -> list[Finding]:
    """How much of the day's calls and events is left.

    Args:
        document: The org's limits resource, not validated; empty where it is not known.
        snapshot: The budget's, with our own calls.
        limits: Where to warn.
    """
    found = []
    own, ceiling = sum(snapshot["own"].values()), limits.daily_api_calls
    counts = {
        "the org's API requests": _used(document, "DailyApiRequests"),
        "limits.daily_api_calls, by this connector alone,": (own, ceiling),
        "the org's delivered events": _used(document, "DailyDeliveredPlatformEvents"),
    }
    mends = {
        "the org's API requests": "find what else uses them: Setup > API Usage; commands go on to the last one",
        "the org's delivered events": "at the end the stream stops and the poller takes over; find other subscribers",
    }
    for what, count in counts.items():
        if count is None or count[0] < count[1] * limits.warn_at:
            continue
        used, most = count
        mend = mends.get(what, "raise it, or poll less often")
        spent = used >= most and "events" not in what
        found.append(Finding("api", "fail" if spent else "warn", f"{used:,} of {most:,} of {what} are used", mend))
    if not found and (requests := counts["the org's API requests"]) is not None:
        used, most = requests
        message = f"{used:,} of the org's {most:,} requests of 24 hours used, {own:,} of our {ceiling:,}"
        found.append(Finding("api", "ok", message))
    return found


def _used(document: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """Used and allowed; None where the document does not tell."""
    entry = document.get(name)
    if not isinstance(entry, Mapping):
        return None
    most, left = entry.get("Max"), entry.get("Remaining")
    return (most - left, most) if isinstance(most, int) and isinstance(left, int) and most > 0 else None


async def objects(doors: OrgDoors) -> tuple[list[Finding], list[str]]:
    """Every object held against its description; the second are those that the org describes.

    Raises:
        NotLoggedIn: The token has died.
    """
    synced = doors.settings.synced()
    answers = await asyncio.gather(*(_described(doors, name) for name in synced))
    found: list[Finding] = []
    unasked: list[str] = []
    there: list[str] = []
    for name, answer in zip(synced, answers, strict=True):
        match answer:
            case OrgThrottled():
                unasked.append(name)
            case Finding():
                found.append(answer)
            case _:
                there.append(name)
                found += object_findings(name, synced[name], answer)
    if unasked:
        found.append(Finding("objects", "warn", f"{listed(unasked)}: not looked at, as no API call is left", _LATER))
    return found, there


async def _described(doors: OrgDoors, name: str) -> Mapping[str, Any] | Finding | OrgThrottled:
    """An object's description, or why there is none."""
    try:
        return await doors.rest.describe(name, Purpose.VERIFY)
    except LoginRefused as error:
        raise NotLoggedIn(Finding("login", "fail", str(error))) from error
    except OrgRefused as error:
        mend = f"give the user's permission set access to it, correct the name, or leave {name} out"
        return Finding("objects", "fail", f"{name}: the org does not describe it: {reason(error)}", mend)
    except OrgThrottled as error:
        return error
    except TransientError as error:
        return Finding("objects", "fail", f"{name}: {error}", _LATER)


async def selection(doors: OrgDoors, names: Collection[str], *, fix: bool) -> list[Finding]:
    """Do the objects' changes come on the stream? With `fix` those that are not selected are.

    Raises:
        NotLoggedIn: The token has died.
    """
    salesforce = doors.settings.salesforce
    if salesforce.stream == "off":
        return [Finding("selection", "ok", "the stream is off: changes come by polls alone")]
    channel = Channel(salesforce.channel)
    carried = [name for name in names if channel.carries(name)]
    found = [
        Finding(
            "selection", "warn", f"{name}: {channel.path} does not carry it; it is polled", "set salesforce.channel"
        )
        for name in names
        if name not in carried
    ]
    if not carried:
        return found
    try:
        selected = await doors.selection.selected(carried, Purpose.VERIFY)
    except LoginRefused as error:
        raise NotLoggedIn(Finding("login", "fail", str(error))) from error
    except OrgRefused as error:
        mend = f'give the user "View Setup and Configuration", or look yourself: {_SETUP}'
        return [*found, Finding("selection", "warn", f"the org does not tell what is selected: {reason(error)}", mend)]
    except OrgThrottled as error:
        return [*found, Finding("selection", "warn", f"not looked at: {error}", _LATER)]
    except TransientError as error:
        return [*found, Finding("selection", "fail", str(error), _LATER)]
    if selected:
        chosen = listed(name for name in carried if name in selected)
        found.append(Finding("selection", "ok", f"selected in {channel.name}: {chosen}"))
    return [*found, *[await _unselected(doors, channel, name, fix=fix) for name in carried if name not in selected]]


async def _unselected(doors: OrgDoors, channel: Channel, name: str, *, fix: bool) -> Finding:
    unselected = f"{name} is not selected in {channel.name}: its changes come by polls alone"
    if not fix:
        return Finding("selection", "fail", unselected, _BY_HAND)
    try:
        await doors.selection.select(name, Purpose.VERIFY)
    except LoginRefused as error:
        raise NotLoggedIn(Finding("login", "fail", str(error))) from error
    except OrgRefused as error:
        mend = f'give the user "Customize Application", or select it yourself: {_SETUP}'
        return Finding("selection", "fail", f"{unselected}, and could not be selected: {reason(error)}", mend)
    except OrgThrottled as error:
        mend = f"take another object out in {_SETUP}: without the add-on licence an org has room for five"
        return Finding("selection", "fail", f"{unselected}, and could not be selected: {error}", mend)
    except TransientError as error:
        return Finding("selection", "fail", f"{unselected}, and may not have been selected: {error}", "run it again")
    return Finding("selection", "ok", f"{name} is selected in {channel.name} now")
