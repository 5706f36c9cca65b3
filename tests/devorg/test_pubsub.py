"""The Pub/Sub API of the local org, spoken by hand."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from connector.devorg.server import DevOrg
from connector.eventbus.pubsub_api_pb2 import PublishRequest, ReplayPreset
from tests.devorg.pubsub import ALL, Fetch, PubSubClient, refused
from tests.waiting import until

STATUS = grpc.StatusCode


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg(pubsub_port=0) as started:
        yield started


@pytest.fixture
async def client(org: DevOrg) -> AsyncIterator[PubSubClient]:
    async with PubSubClient(org) as made:
        yield made


def make(org: DevOrg, *names: str) -> list[str]:
    """A transaction per contact."""
    ids = []
    for name in names:
        with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
            ids.append(work.create("Contact", {"LastName": name}))
    return ids


async def names(client: PubSubClient, fetch: Fetch, count: int) -> list[str]:
    return [(await client.read(event))["Name"]["LastName"] for event in await fetch.events(count)]


# Topics and schemas


async def test_a_topic(org: DevOrg, client: PubSubClient) -> None:
    """Named as the CometD channel; change events cannot be published."""
    info = await client.topic("/data/ContactChangeEvent")
    assert (info.tenant_guid, info.can_subscribe, info.can_publish) == (org.ctx.tokens.org_id, True, False)
    assert info.schema_id == org.ctx.schema.event_schema_id("Contact")
    assert (await client.topic(ALL)).schema_id == ""


async def test_topics_that_are_none(client: PubSubClient) -> None:
    """Blank, or of nothing."""
    assert await refused(client.topic("")) == (STATUS.INVALID_ARGUMENT, "topic.validation.empty")
    assert await refused(client.topic("/data/NothingChangeEvent")) == (STATUS.NOT_FOUND, "topic.not.found")


async def test_a_schema_is_made_of_the_description(client: PubSubClient) -> None:
    """Header first, compounds nested once and then named, everything else a union with null."""
    schema = await client.schema((await client.topic("/data/ContactChangeEvent")).schema_id)
    assert (schema["name"], schema["namespace"]) == ("ContactChangeEvent", "com.sforce.eventbus")
    fields = {field["name"]: field["type"] for field in schema["fields"]}
    assert next(iter(fields)) == "ChangeEventHeader"
    assert [part["name"] for part in fields["Name"][1]["fields"]] == ["Salutation", "FirstName", "LastName"]
    assert fields["OtherAddress"][1]["name"] == fields["MailingAddress"][1] == "Address"
    assert [fields[n][1] for n in ("Phone", "Birthdate", "CreatedDate")] == ["string", "long", "long"]
    lead = await client.schema((await client.topic("/data/LeadChangeEvent")).schema_id)
    kinds = {field["name"]: field["type"][1] for field in lead["fields"][1:]}
    assert (kinds["IsConverted"], kinds["AnnualRevenue"], kinds["NumberOfEmployees"]) == ("boolean", "double", "int")


async def test_a_new_field_is_a_new_schema_and_the_old_one_stays(org: DevOrg, client: PubSubClient) -> None:
    """Each event is read by the schema that it was logged with, also after a restart of nothing but the schema."""
    fetch = await client.subscribe()
    make(org, "A")
    org.ctx.schema.add_field("Contact", {"name": "Region__c", "type": "string", "length": 40})
    make(org, "B")
    old, new = await fetch.events(2)
    assert old.event.schema_id != new.event.schema_id
    told = [[f["name"] for f in (await client.schema(e.event.schema_id))["fields"]] for e in (old, new)]
    assert ["Region__c" in names for names in told] == [False, True]
    assert (await client.read(old))["Name"]["LastName"] == "A"
    assert await refused(client.schema("nothing")) == (STATUS.INVALID_ARGUMENT, "schema.validation.failed")


# Events


async def test_an_update_tells_its_fields_by_bitmaps(org: DevOrg, client: PubSubClient) -> None:
    """Changed, cleared, and parts of compounds; everything else is null."""
    [contact] = make(org, "A")
    fields = [f["name"] for f in (await client.schema(org.ctx.schema.event_schema_id("Contact")))["fields"]]
    fetch = await client.subscribe()
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.update("Contact", contact, {"Phone": "1", "FirstName": "B", "MailingCity": "Oslo"})
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.update("Contact", contact, {"Phone": None, "MailingCity": None})
    first, second = [await client.read(event) for event in await fetch.events(2)]
    header = first["ChangeEventHeader"]
    top = 1 << fields.index("Phone") | 1 << fields.index("LastModifiedDate")
    name, address = fields.index("Name"), fields.index("MailingAddress")
    assert int(header["changedFields"][0], 16) == top
    assert header["changedFields"][1:] == [f"{name}-0x02", f"{address}-0x02"]
    assert (header["nulledFields"], header["diffFields"]) == ([], [])
    assert first["Name"] == {"Salutation": None, "FirstName": "B", "LastName": None}
    assert "Phone" not in second
    assert second["ChangeEventHeader"]["nulledFields"] == ["0x20", f"{address}-0x02"]


async def test_a_long_text_comes_as_a_diff(org: DevOrg, client: PubSubClient) -> None:
    """As a plain text, and the header says that it is a diff."""
    long = "\n".join(f"Row {n:02d} " + "x" * 60 for n in range(1, 41))
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        contact = work.create("Contact", {"LastName": "A", "Description": long})
    fetch = await client.subscribe()
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.update("Contact", contact, {"Description": long.replace("Row 07", "Row seven")})
    [event] = await fetch.events(1)
    found = await client.read(event)
    fields = [f["name"] for f in (await client.schema(event.event.schema_id))["fields"]]
    assert int(found["ChangeEventHeader"]["diffFields"][0], 16) == 1 << fields.index("Description")
    assert found["Description"].startswith("--- \n+++ ")


async def test_what_no_schema_holds_is_delivered_as_it_is(org: DevOrg, client: PubSubClient) -> None:
    """A payload on order that nobody can read."""
    fetch = await client.subscribe()
    org.ctx.bus.emit({"no": "header"}, entity="Contact")
    [event] = await fetch.events(1)
    assert event.event.payload == b'{"no":"header"}'


async def test_positions(org: DevOrg, client: PubSubClient) -> None:
    """Behind an id, at the oldest event, at new ones only; eight bytes, big-endian, as CometD's numbers."""
    fetch = await client.subscribe()
    make(org, "A", "B", "C")
    events = await fetch.events(3)
    assert int.from_bytes(events[2].replay_id) == org.ctx.bus.latest_id()
    assert await names(client, await client.behind(events[0].replay_id), 2) == ["B", "C"]
    assert await names(client, await client.subscribe(replay_preset=ReplayPreset.EARLIEST), 3) == ["A", "B", "C"]
    latest = await client.subscribe()
    make(org, "D")
    assert await names(client, latest, 1) == ["D"]


async def test_positions_that_are_none(org: DevOrg, client: PubSubClient) -> None:
    """Too old, of another form, or missing."""
    fetch = await client.subscribe()
    make(org, "A")
    [event] = await fetch.events(1)
    org.ctx.org.advance(73 * 3600)
    org.ctx.tokens.keep(client.metadata["accesstoken"])
    for replay_id in (event.replay_id, b"12345", bytes(8), b"\xff" * 8, event.replay_id * 2):
        call = (await client.behind(replay_id)).call.read()
        assert await refused(call) == (STATUS.INVALID_ARGUMENT, "subscription.fetch.replayid.corrupted")
    call = (await client.behind(b"")).call.read()
    assert await refused(call) == (STATUS.INVALID_ARGUMENT, "subscription.fetch.replayid.validation.failed")


# Flow control


async def test_no_more_than_was_asked_for(org: DevOrg, client: PubSubClient) -> None:
    """Credit adds up, 100 at most; what is left of it is told."""
    fetch = await client.subscribe(count=2)
    make(org, *"ABCDE")
    assert await names(client, fetch, 2) == ["A", "B"]
    await fetch.ask(1)
    third = await fetch.response()
    assert (len(third.events), third.pending_num_requested) == (1, 0)
    await fetch.ask(200)
    rest = [await fetch.response()]
    while sum(len(response.events) for response in rest) < 2:
        rest.append(await fetch.response())
    assert rest[-1].pending_num_requested == 98


async def test_a_request_for_nothing_and_one_for_another_topic(client: PubSubClient) -> None:
    """Each ends the stream."""
    none = await client.subscribe(count=0)
    assert await refused(none.call.read()) == (
        STATUS.INVALID_ARGUMENT,
        "subscription.fetch.requested.events.invalid",
    )
    other = await client.subscribe()
    await other.ask(1, topic_name="/data/LeadChangeEvent")
    assert await refused(other.call.read()) == (STATUS.INVALID_ARGUMENT, "subscription.fetch.topic.mismatch")


async def test_an_idle_topic_is_kept_alive_with_a_newer_position(org: DevOrg, client: PubSubClient) -> None:
    """An empty response, behind everything that the topic does not carry."""
    org.ctx.settings.pubsub_keepalive_s = 0.2
    fetch = await client.subscribe("/data/LeadChangeEvent")
    make(org, "A")
    response = await fetch.response()
    assert (len(response.events), response.pending_num_requested) == (0, 100)
    assert int.from_bytes(response.latest_replay_id) == org.ctx.bus.latest_id()
    org.ctx.settings.stream_stalled = True
    await fetch.response()
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.create("Lead", {"LastName": "B", "Company": "B"})
    held = (await fetch.response()).latest_replay_id
    assert int.from_bytes(held) < org.ctx.bus.latest_id()
    org.ctx.settings.stream_stalled = False
    assert len(await (await client.behind(held, "/data/LeadChangeEvent")).events(1)) == 1


async def test_what_is_under_way_lies_behind_the_position_of_an_empty_response(
    org: DevOrg, client: PubSubClient
) -> None:
    """An event that is delivered later is not passed over by what keeps the stream alive meanwhile."""
    org.ctx.settings.pubsub_keepalive_s = 0.1
    org.ctx.settings.stream_delay_s = 1.5
    fetch = await client.subscribe()
    before = org.ctx.bus.latest_id()
    make(org, "A")
    response = await fetch.response()
    assert (len(response.events), int.from_bytes(response.latest_replay_id)) == (0, before)
    org.ctx.settings.stream_delay_s = 0
    assert await names(client, fetch, 1) == ["A"]


async def test_a_position_that_was_told_without_an_event_is_one(org: DevOrg, client: PubSubClient) -> None:
    """Before the first event of all, and of an idle org whose newest event is older than what it keeps."""
    org.ctx.settings.pubsub_keepalive_s = 0.1
    first = (await (await client.subscribe()).response()).latest_replay_id
    fetch = await client.behind(first)
    make(org, "A")
    [event] = await fetch.events(1)
    org.ctx.org.advance(73 * 3600)
    org.ctx.tokens.keep(client.metadata["accesstoken"])
    call = (await client.behind(event.replay_id)).call.read()
    assert await refused(call) == (STATUS.INVALID_ARGUMENT, "subscription.fetch.replayid.corrupted")
    again = (await (await client.subscribe()).response()).latest_replay_id
    fetch = await client.behind(again)
    make(org, "B")
    assert await names(client, fetch, 1) == ["B"]


async def test_a_stream_that_asks_for_nothing_is_closed(org: DevOrg, client: PubSubClient) -> None:
    """Without an error, and so is one that never asks at all."""
    org.ctx.settings.pubsub_idle_s = 0.2
    fetch = await client.subscribe(count=1)
    make(org, "A")
    await fetch.events(1)
    assert await fetch.ended()
    silent = Fetch(client.stub.Subscribe(metadata=client.sent()))
    assert await silent.ended()


# Who may call


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"accesstoken": ""}, "service.auth.headers.invalid"),
        ({"tenantid": ""}, "service.auth.headers.invalid"),
        ({"tenantid": "00D5f000000Other"}, "service.auth.headers.invalid"),
        ({"instanceurl": ""}, "service.auth.headers.invalid"),
        ({"instanceurl": "https://elsewhere.example"}, "service.auth.error"),
        ({"accesstoken": "00D5f000000Qr8s!nobody"}, "service.auth.error"),
        ({"accesstoken": "Bearer 00D5f000000Qr8s!DevOrgAccessToken"}, "service.auth.error"),
    ],
)
async def test_metadata_that_is_not_complete_or_not_right(
    client: PubSubClient, metadata: dict[str, str], expected: str
) -> None:
    """Checked at every call."""
    assert await refused(client.topic(ALL, **metadata)) == (STATUS.UNAUTHENTICATED, expected)


async def test_names_of_the_tenant(org: DevOrg, client: PubSubClient) -> None:
    """18 characters, a core tenant, and 15 where that is switched on."""
    org_id = org.ctx.tokens.org_id
    for tenant in (org_id, f"core/local/{org_id}", org_id[:15]):
        assert (await client.topic(ALL, tenantid=tenant)).can_subscribe
    org.ctx.settings.short_tenant_ids = False
    assert (await refused(client.topic(ALL, tenantid=org_id[:15])))[1] == "service.auth.headers.invalid"


async def test_a_revoked_token_ends_the_stream(org: DevOrg, client: PubSubClient) -> None:
    """A used one does not expire by idleness."""
    fetch = await client.subscribe()
    org.ctx.org.advance(7300)
    make(org, "A")
    await fetch.events(1)
    org.ctx.tokens.expire("access")
    assert await refused(fetch.call.read()) == (STATUS.UNAUTHENTICATED, "service.auth.error")


# Limits


async def test_the_day_s_events(org: DevOrg, client: PubSubClient) -> None:
    """Counted together with CometD's; at the limit a stream ends and none begins."""
    org.ctx.settings.delivered_event_limit = 2
    fetch = await client.subscribe()
    make(org, "A", "B")
    await fetch.events(2)
    assert org.ctx.usage.delivered.used() == 2
    make(org, "C")
    spent = (STATUS.RESOURCE_EXHAUSTED, "subscription.limit.exceeded")
    assert await refused(fetch.call.read()) == spent
    assert await refused((await client.subscribe()).call.read()) == spent


async def test_too_many_streams(org: DevOrg, client: PubSubClient) -> None:
    """The next one is refused; one that ends makes room."""
    org.ctx.settings.max_pubsub_streams = 1
    first = await client.subscribe()
    refusal = await refused((await client.subscribe()).call.read())
    assert refusal == (STATUS.RESOURCE_EXHAUSTED, "concurrent.client.limit.exceeded")
    first.call.cancel()

    make(org, "A")

    async def admitted() -> bool:
        fetch = await client.subscribe(replay_preset=ReplayPreset.EARLIEST)
        try:
            return bool(await fetch.events(1))
        except grpc.aio.AioRpcError:
            return False
        finally:
            fetch.call.cancel()

    await until(admitted, 5)


async def test_publishing_is_not_there(client: PubSubClient) -> None:
    """UNIMPLEMENTED, by gRPC itself."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Publish(PublishRequest(topic_name=ALL), metadata=client.sent())
    assert caught.value.code() is STATUS.UNIMPLEMENTED


# Channels


async def test_a_channel_with_enriched_fields(org: DevOrg, client: PubSubClient) -> None:
    """An event for each record, with one replay id, and the field that did not change."""
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], {"Contact": ["Name"]})
    contacts = make(org, "A", "B")
    fetch = await client.subscribe("/data/Sales__chn")
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        for contact in contacts:
            work.update("Contact", contact, {"Phone": "7"})
    events = await fetch.events(2)
    assert len({event.replay_id for event in events}) == 1
    found = [await client.read(event) for event in events]
    assert [event["ChangeEventHeader"]["recordIds"] for event in found] == [[contact] for contact in contacts]
    assert [event["Name"]["LastName"] for event in found] == ["A", "B"]
    assert all(len(event["ChangeEventHeader"]["changedFields"]) == 1 for event in found)


# Faults and ends


async def test_faults_on_order(org: DevOrg, client: PubSubClient) -> None:
    """At each point, with any code."""
    org.ctx.faults.add("pubsub", code="service.unavailable")
    assert await refused(client.topic(ALL)) == (STATUS.UNAVAILABLE, "service.unavailable")
    org.ctx.faults.add("pubsub:topic", code="topic.api.unavailable", path="Contact")
    assert (await client.topic(ALL)).can_subscribe
    assert (await refused(client.topic("/data/ContactChangeEvent")))[1] == "topic.api.unavailable"
    org.ctx.faults.add("pubsub:schema", code="schema.api.unavailable")
    assert (await refused(client.schema("x")))[1] == "schema.api.unavailable"
    org.ctx.faults.add("pubsub:subscribe", invalid_replay_id=True)
    call = (await client.subscribe()).call.read()
    assert (await refused(call))[1] == "subscription.fetch.replayid.corrupted"
    org.ctx.faults.add("pubsub:subscribe", close=True)
    assert await (await client.subscribe()).ended()
    waiting = await client.subscribe()
    org.ctx.faults.add("pubsub:fetch", code="subscription.internal.error")
    assert await refused(waiting.call.read()) == (STATUS.INTERNAL, "subscription.internal.error")


async def test_faults_of_events_on_their_way(org: DevOrg, client: PubSubClient) -> None:
    """Twice, cut, or lost with the stream; a subscription behind the last id has them again."""
    fetch = await client.subscribe()
    make(org, "A")
    [first] = await fetch.events(1)
    org.ctx.faults.add("pubsub:deliver", duplicate=True)
    make(org, "B")
    assert await names(client, fetch, 2) == ["B", "B"]
    org.ctx.faults.add("pubsub:deliver", truncate=True)
    make(org, "C")
    [cut] = await fetch.events(1)
    org.ctx.faults.add("pubsub:deliver", drop_response=True)
    make(org, "D")
    assert (await refused(fetch.call.read()))[1] == "subscription.internal.error"
    whole = await (await client.behind(first.replay_id)).events(3)
    assert whole[1].event.payload[: len(cut.event.payload)] == cut.event.payload != whole[1].event.payload


async def test_no_answer_ever(org: DevOrg, client: PubSubClient) -> None:
    """Half open: the caller's patience decides."""
    org.ctx.faults.add("pubsub:topic", half_open=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.topic(ALL)


async def test_a_reset_stream_ends(org: DevOrg, client: PubSubClient) -> None:
    """Old positions mean nothing in the new one."""
    fetch = await client.subscribe()
    make(org, "A")
    [event] = await fetch.events(1)
    org.ctx.bus.reset()
    assert (await refused(fetch.call.read()))[1] == "subscription.internal.error"
    call = (await client.behind(event.replay_id)).call.read()
    assert (await refused(call))[1] == "subscription.fetch.replayid.corrupted"


async def test_an_org_that_is_down_and_up_again(org: DevOrg, client: PubSubClient) -> None:
    """On the same port."""
    url = org.ctx.pubsub_url
    await org.hang_up()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.topic(ALL)
    assert caught.value.code() is STATUS.UNAVAILABLE
    await org.listen()
    assert org.ctx.pubsub_url == url
    async with PubSubClient(org) as again:
        assert (await again.topic(ALL)).can_subscribe


async def test_a_port_that_is_taken(org: DevOrg) -> None:
    """Said at the start, and nothing stays behind."""
    port = int(org.ctx.pubsub_url.rpartition(":")[2])
    with pytest.raises(OSError, match=str(port)):
        await DevOrg(pubsub_port=port).start()
