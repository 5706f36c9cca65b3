"""Everything of the local org that can be switched or scaled, changeable while it runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connector.devorg.errors import OrgError

OLDEST_VERSION = 37
NEWEST_VERSION = 66
_SIGNED = ("login_clock_offset_s",)


@dataclass(kw_only=True)
class OrgSettings:
    """Switches and scales. One object for the whole org: read an attribute each time it is used.

    Durations are seconds of the org's clock, but for the two timers of `/meta/connect` and the two of the Pub/Sub API,
    which are seconds of real time.
    What the documents leave open has the default of the reference's table of open points.

    Attributes:
        token_lifetime_s: An access token dies after so long without a call.
        login_rate_per_hour: Token requests of one user in an hour.
        rotate_refresh_tokens: Answer a refresh with a new refresh token and kill the old one.
        refresh_needs_secret: The refresh-token flow asks for the client secret.
        login_host: Behave as login.salesforce.com, which refuses the client-credentials flow.
        instance_url: Named by token responses; empty is the URL that the server listens on.
        disabled_flows: Grant types that are answered with `unsupported_grant_type`.
        run_as_user: The client-credentials flow has a user to run as.
        user_approved: The user may use the client app (JWT flow).
        user_active: The integration user is not frozen.
        my_domain_audience: A JWT may name this org's own URL as its audience.
        login_clock_offset_s: Error of the login server's clock, which checks the `exp` of a JWT.

        api_limit: API requests in any 24 hours.
        limit_info: Send `Sforce-Limit-Info`.
        composite_client_origin: `Sforce-Call-Options` counts on `/composite/*` as well.
        token_calls_counted: Token requests count towards `api_limit`.
        gzip: Compress what the client says it can decompress.

        query_locator_s: Life of a query locator.
        bulk_job_s: Real seconds that a Bulk job stays unfinished: a query job, or an ingest job once it has its data.
        deleted_lists_purged: `getDeleted` lists records that are hard deleted.

        connect_hold_s: An idle `/meta/connect` is answered after so long (`advice.timeout`).
        connect_gap_s: The next `/meta/connect` has to come within it, or the session is forgotten.
        routing_cookie_s: Life of the load balancer's cookie; then the client is unknown.
        session_cookie: Name of the cookie that a CometD session is tied to.
        routing_cookie: Name of the load balancer's.
        payload_format: The handshake advertises `payload.format`.
        foreign_replay_ids: The replay id of an event that a channel does not carry is a position in it all the same.
        gaps_on_filtered_channels: Gap and overflow events reach channels that filter their object.
        max_streaming_clients: CometD sessions at a time.
        delivered_event_limit: Events delivered to all subscribers in any 24 hours.
        max_cometd_body_bytes: A longer request body is answered 413.
        max_events_per_response: Events of one CometD response; the next connect brings the rest at once.
        events_before_reply: Events stand before the meta message in a CometD response, else behind it.
        pubsub_keepalive_s: A Pub/Sub subscriber gets an empty response after so long without events.
        pubsub_idle_s: A Pub/Sub stream that asks for nothing is closed after so long.
        pubsub_early_headers: The headers of a subscription come as soon as it stands, else with its first response.
        short_tenant_ids: The Pub/Sub API takes an org id of 15 characters.
        max_pubsub_streams: Pub/Sub subscriptions at a time.
        stream_delay_s: Events are delivered so long after their commit.
        stream_stalled: Events are logged but not delivered: subscriptions stay healthy and silent.
    """

    token_lifetime_s: float = 7200
    login_rate_per_hour: int = 3600
    rotate_refresh_tokens: bool = False
    refresh_needs_secret: bool = True
    login_host: bool = False
    instance_url: str = ""
    disabled_flows: tuple[str, ...] = ()
    run_as_user: bool = True
    user_approved: bool = True
    user_active: bool = True
    my_domain_audience: bool = True
    login_clock_offset_s: float = 0

    api_limit: int = 15_000
    limit_info: bool = True
    composite_client_origin: bool = False
    token_calls_counted: bool = False
    gzip: bool = True

    query_locator_s: float = 48 * 3600
    bulk_job_s: float = 0
    deleted_lists_purged: bool = True

    connect_hold_s: float = 110
    connect_gap_s: float = 40
    routing_cookie_s: float = 3 * 3600
    session_cookie: str = "BAYEUX_BROWSER"
    routing_cookie: str = "sfdc-stream"
    payload_format: bool = True
    foreign_replay_ids: bool = True
    gaps_on_filtered_channels: bool = True
    max_streaming_clients: int = 20
    delivered_event_limit: int = 10_000
    max_cometd_body_bytes: int = 32_768
    max_events_per_response: int = 1000
    events_before_reply: bool = True
    pubsub_keepalive_s: float = 270
    pubsub_idle_s: float = 70
    pubsub_early_headers: bool = True
    short_tenant_ids: bool = True
    max_pubsub_streams: int = 1000
    stream_delay_s: float = 0
    stream_stalled: bool = False


def change(parts: Sequence[Any], values: Mapping[str, Any]) -> None:
    """Set the named attributes of whichever of `parts` (dataclass objects) has them: all of them or none.

    Raises:
        OrgError: A name is unknown or a value is of another type (400 INVALID_SETTING, naming all).
    """
    owners = {field.name: part for part in parts for field in dataclasses.fields(part)}
    wrong = [
        f"{name}: {_expected(name, getattr(owners[name], name), value)}" if name in owners else f"{name}: unknown"
        for name, value in values.items()
        if name not in owners or _expected(name, getattr(owners[name], name), value)
    ]
    if wrong:
        raise OrgError(400, "INVALID_SETTING", "; ".join(wrong))
    for name, value in values.items():
        setattr(owners[name], name, tuple(value) if isinstance(value, list) else value)


def _expected(name: str, now: object, value: object) -> str:
    """What was expected in place of `value`, by the setting's value as it stands; empty if it fits."""
    match now:
        case bool():
            return "" if isinstance(value, bool) else "expected true or false"
        case int() | float():
            # The scales given as whole numbers by default are counts, but for the durations (`_s`).
            types = (int, float) if name.endswith("_s") else (int,)
            if not isinstance(value, types) or isinstance(value, bool):
                return "expected a number" if float in types else "expected a whole number"
            return "" if value >= 0 or name in _SIGNED else "expected zero or more"
        case tuple():
            texts = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
            return "" if texts else "expected a list of texts"
        case _:
            return "" if isinstance(value, str) else "expected a text"
