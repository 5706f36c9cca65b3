"""An org's records without its server: for tests of what transactions do."""

from dataclasses import dataclass, field

from connector.devorg.clock import OrgClock
from connector.devorg.commits import Commit
from connector.devorg.database import OrgDatabase
from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.objects.schema import Schema
from connector.devorg.records.org import Org

USER = INTEGRATION_USER_ID
START_MS = 1_767_268_800_500  # 2026-01-01T12:00:00.500Z


@dataclass
class Sink:
    """Keeps the commits an org hands to its bus."""

    commits: list[Commit] = field(default_factory=list)

    def append(self, commit: Commit) -> None:
        """Keep one commit."""
        self.commits.append(commit)

    def wake(self) -> None:
        """Nobody waits."""


class Books:
    """An org on a clock that moves only when told."""

    def __init__(self, database: OrgDatabase | None = None) -> None:
        self.now_ms = START_MS
        self.database = database or OrgDatabase()
        self.schema = Schema(self.database)
        self.clock = OrgClock(wall=lambda: self.now_ms)
        self.sink = Sink()
        self.org = Org(self.schema, self.clock, self.database, self.sink)

    def kinds(self) -> list[tuple[str, str]]:
        """Object and kind of each change in the newest commit."""
        return [(change.object, change.kind) for change in self.sink.commits[-1].changes]

    def create(self, object_name: str, **values: object) -> str:
        """Create one record in a transaction of its own."""
        with self.org.transaction(USER, "") as transaction:
            return transaction.create(object_name, values)
