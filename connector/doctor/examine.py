"""The examination: every check that can be made, whatever the others found."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from connector.doctor import local, node, org
from connector.doctor.findings import Finding, Report
from connector.doctor.local import ReplicaState
from connector.doctor.org import NotLoggedIn, OrgDoors
from connector.errors import ConfigError, ConnectorError
from connector.ports import Unit
from connector.salesforce.budget import ApiBudget
from connector.salesforce.login import Session
from connector.salesforce.rest import RestClient
from connector.salesforce.selection import Channel, ChannelSelection
from connector.salesforce.token_store import FileTokenStore
from connector.settings import PLACEHOLDER_URL, Settings, load_settings
from connector.store.session import Session as Writer

T = TypeVar("T")

MOST_CHARACTERS = 500
ON_THIS_MACHINE = ("disk", "replica", "broker")
AT_THE_ORG = ("org", "clock", "login", "api", "objects", "selection")


async def examine(
    path: Path | None, *, directory: Path, fix: bool, tell: Callable[[Finding], None], now_ms: Callable[[], int]
) -> Report:
    """Look at everything; beside a running daemon, too.

    Args:
        path: The settings file; None: as `load_settings` finds it.
        directory: The working directory.
        fix: Select the objects for Change Data Capture, and close files with secrets to other users.
        tell: Gets each finding at once.
        now_ms: Milliseconds since the Unix epoch, UTC.
    """
    examination = _Examination(tell, now_ms)
    try:
        settings = load_settings(path, directory=directory)
    except ConfigError as error:
        examination.tell(local.wrong_setting(problem) for problem in error.problems)
        examination.tell(local.secret_files(directory, None))
    else:
        await examination.run(settings, directory, fix=fix)
    return examination.report()


class _Examination:
    def __init__(self, tell: Callable[[Finding], None], now_ms: Callable[[], int]) -> None:
        self._tell = tell
        self._now_ms = now_ms
        self._found: list[Finding] = []

    def tell(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            # Some of the words are the org's or the broker's, and go to a terminal.
            shown = replace(finding, message=_line(finding.message), mend=_line(finding.mend))
            self._found.append(shown)
            self._tell(shown)

    def report(self) -> Report:
        made = {finding.check for finding in self._found}
        skipped = [check for check in (*ON_THIS_MACHINE, *AT_THE_ORG) if check not in made]
        return Report(tuple(self._found), tuple(skipped))

    async def run(self, settings: Settings, directory: Path, *, fix: bool) -> None:
        problems = list(local.settings_problems(settings))
        self.tell(problems or [local.settings_in_short(settings)])
        self.tell(local.secret_files(directory, settings, fix=fix))
        self.tell([node.versions(), await asyncio.to_thread(node.time_source)])
        self.tell([local.disk(settings.storage.path)])
        finding, replica = local.replica(settings.storage.path)
        self.tell([finding])
        storage = settings.storage
        self.tell([node.backup_age(storage.path, storage.backup_folder(), self._now_ms())])
        self.tell(await local.broker(settings))
        if settings.salesforce.instance_url == PLACEHOLDER_URL:
            return
        self.tell(await org.way_there(settings, self._now_ms))
        if _has_secrets(settings):
            await self._inside(settings, replica, fix=fix)

    async def _inside(self, settings: Settings, replica: ReplicaState, *, fix: bool) -> None:
        try:
            async with self._doors(settings, replica) as doors:
                logged_in = await org.login(doors)
                self.tell(logged_in)
                found, there = await org.objects(doors)
                self.tell(found)
                # An org that is not the replica's is probably not the one that is meant.
                meant = all(finding.check != "replica" or finding.state == "ok" for finding in logged_in)
                self.tell(await org.selection(doors, there, fix=fix and meant))
        except NotLoggedIn as error:
            self.tell([error.finding])

    @asynccontextmanager
    async def _doors(self, settings: Settings, replica: ReplicaState) -> AsyncIterator[OrgDoors]:
        salesforce, path = settings.salesforce, settings.storage.path
        store = FileTokenStore(path.with_name("refresh_token.json"))
        session = Session(salesforce, settings.secrets, settings.auth_flow(), now_ms=self._now_ms, store=store)
        timeout_s = salesforce.timeout.total_seconds()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(session)
            budget = await stack.enter_async_context(self._budget(settings, replica))
            rest = RestClient(session, budget, api_version=salesforce.api_version, timeout_s=timeout_s)
            selection = ChannelSelection(
                session,
                budget,
                Channel(salesforce.channel),
                api_version=salesforce.api_version,
                timeout_s=timeout_s,
            )
            yield OrgDoors(
                settings=settings,
                session=session,
                budget=budget,
                rest=await stack.enter_async_context(rest),
                selection=await stack.enter_async_context(selection),
                replica_org_id=replica.org_id,
            )

    @asynccontextmanager
    async def _budget(self, settings: Settings, replica: ReplicaState) -> AsyncIterator[ApiBudget]:
        """The budget, counted in the replica where there is one: these calls are calls like any other."""
        writer = Writer(settings.storage.path, guest=True)
        budget = ApiBudget(settings.limits, None, now_ms=self._now_ms)
        try:
            if replica.current:
                await asyncio.to_thread(writer.open)
                counted = ApiBudget(settings.limits, _Guest(writer), now_ms=self._now_ms, ahead=False)
                budget = await counted.__aenter__()
        except ConnectorError as error:
            self.tell([_uncounted(error)])
        try:
            yield budget
        finally:
            try:
                await budget.flush()
            except ConnectorError as error:
                self.tell([_uncounted(error)])
            writer.close()


class _Guest:
    """`ports.Replica` over a writer beside the daemon."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def run(self, work: Callable[[Unit], T]) -> T:
        """Run `work(unit)` as one transaction."""
        return await asyncio.to_thread(self._writer.run, work)


def _line(text: str) -> str:
    """A text as one printable line, shortened."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"


def _uncounted(error: ConnectorError) -> Finding:
    mend = "if it lasts, find who keeps the file locked or read-only"
    return Finding("replica", "warn", f"the API calls of this check cannot be counted: {error}", mend)


def _has_secrets(settings: Settings) -> bool:
    try:
        settings.auth_flow()
    except ConfigError:
        return False
    return True
