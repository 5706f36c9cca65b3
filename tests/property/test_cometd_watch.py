"""No answer of a streaming server breaks the watch."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ConnectorError
from connector.model.change import ReplayId
from connector.salesforce.cometd_watch import CometdLimits, SessionOver, SessionWatch

CHANNEL = "/data/ChangeEvents"
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
channels = st.sampled_from(
    [CHANNEL, "/meta/connect", "/meta/subscribe", "/meta/handshake", "/meta/disconnect", "/data/Other"]
)
events = st.fixed_dictionaries({"event": st.fixed_dictionaries({"replayId": scalars}) | values, "payload": values})
messages = st.fixed_dictionaries(
    {"channel": channels | values},
    optional={
        "successful": st.booleans() | values,
        "error": st.sampled_from(["403::Unknown client", "401::x", "400::The replayId"]) | values,
        "advice": st.dictionaries(st.sampled_from(["interval", "timeout", "reconnect"]), scalars) | values,
        "ext": values,
        "subscription": st.just(CHANNEL) | values,
        "data": events | values,
    },
)


@given(st.lists(st.lists(messages, max_size=4) | values, max_size=4))
async def test_hostile_answers_end_the_session_or_do_nothing(answers: list[Any]) -> None:
    """Each is taken, or declares the session over; the library is left with meta messages that it can read."""
    watch = SessionWatch(
        channel=CHANNEL, position=ReplayId(b"1"), token="t", limits=CometdLimits(), on_frame=lambda: None
    )
    for answer in answers:
        try:
            await watch.incoming(answer)
        except SessionOver:
            assert isinstance(watch.ended, ConnectorError)
            break
        assert all(m["channel"].startswith("/meta/") for m in answer)
        assert all(isinstance(m.get("advice", {}), dict) for m in answer)
