"""CometD sessions and the load balancer's routes: what the server knows of its clients between requests."""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from connector.devorg.clock import OrgClock
from connector.devorg.events.channels import Channel
from connector.devorg.settings import OrgSettings

CLIENT_ID_LENGTH = 26
MOST_ROUTES = 10_000
_LETTERS = string.ascii_lowercase + string.digits


def random_name(length: int = CLIENT_ID_LENGTH) -> str:
    """A name that can not be guessed."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


@dataclass(slots=True)
class Subscription:
    """One channel of a session; events behind position `after` are still to be delivered."""

    channel: Channel
    after: int


@dataclass(slots=True, kw_only=True)
class Session:
    """One clientId.

    Attributes:
        browser: Value of the cookie that has to come with each of its messages.
        route: The load balancer's route to the server that knows it.
        epoch: Of the event stream it was made in.
        subscriptions: By channel name.
        advised: The first connect, which alone carries the advice, is answered.
        turn: Counts its connects; only the newest one is held.
        held: Connects being held.
        expires_s: When it is forgotten unless a connect comes, by the time source; unused while one is held.
        seen: Newest position of the log that delivered everything up to it.
    """

    client_id: str
    user_id: str
    browser: str
    route: str
    epoch: int
    expires_s: float
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    advised: bool = False
    turn: int = 0
    held: int = 0
    seen: int = -1


class Sessions:
    """Every live session by clientId; a session whose client does not come back in time is forgotten.

    Args:
        settings: Timers, read anew each time.
        time_s: Real time in seconds.

    Source: Streaming API Developer Guide, "Clients and Timeouts".
    """

    def __init__(self, settings: OrgSettings, time_s: Callable[[], float]) -> None:
        self._settings = settings
        self._time_s = time_s
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        self._forget_late()
        return len(self._sessions)

    def open(self, *, user_id: str, browser: str, route: str, epoch: int) -> Session:
        """A new session."""
        client_id = random_name()
        session = Session(
            client_id=client_id,
            user_id=user_id,
            browser=browser,
            route=route,
            epoch=epoch,
            expires_s=self._time_s() + self._settings.connect_gap_s,
        )
        self._sessions[client_id] = session
        return session

    def find(self, client_id: object) -> Session | None:
        """The session, or None where there is none any more."""
        self._forget_late()
        return self._sessions.get(client_id) if isinstance(client_id, str) else None

    def knows(self, session: Session) -> bool:
        """Whether the session was not closed meanwhile."""
        return self._sessions.get(session.client_id) is session

    def close(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.pop(session.client_id, None)

    def answered(self, session: Session, *, idle: bool = False) -> None:
        """A response goes out: the next connect has to come within the gap; after an idle poll there is more time."""
        gap_s = self._settings.connect_gap_s
        session.expires_s = self._time_s() + (max(gap_s, self._settings.connect_hold_s) if idle else gap_s)

    def _forget_late(self) -> None:
        now_s = self._time_s()
        late = [name for name, known in self._sessions.items() if not known.held and known.expires_s < now_s]
        for name in late:
            del self._sessions[name]


class Routes:
    """The load balancer's cookies; each leads to one server for a time, and then to another one.

    Source: Salesforce Help 005321562; the life of about three hours is observed, not documented.
    """

    def __init__(self, settings: OrgSettings, clock: OrgClock) -> None:
        self._settings = settings
        self._clock = clock
        self._made_ms: dict[str, int] = {}

    def leads(self, cookie: str | None) -> bool:
        """Whether the cookie still leads to the server that gave it."""
        made_ms = self._made_ms.get(cookie or "")
        return made_ms is not None and self._clock.now_ms() - made_ms < self._settings.routing_cookie_s * 1000

    def make(self) -> str:
        """A new route's cookie value."""
        if len(self._made_ms) >= MOST_ROUTES:
            del self._made_ms[next(iter(self._made_ms))]
        cookie = random_name()
        self._made_ms[cookie] = self._clock.now_ms()
        return cookie
