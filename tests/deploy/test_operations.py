"""docs/operations.md, typed on a node line by line, in a shell, as root. `make test-deploy`.

What a line leaves to the reader (an address, a password, a file's name) is put into it, and nothing else. The node has
no internet, no git, no editor and no sudo: stand-ins do what each of them would bring about.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.container import Node, checkout, wheels
from tests.documents import ROOT, inline
from tests.e2e.waiting import until

pytestmark = [pytest.mark.timeout(600), pytest.mark.deploy]

SERVICE = "salesforce-sync.service"
PROGRAM = "/opt/salesforce-sync/current/bin/salesforce-sync"
USERS = "/opt/salesforce-sync/current/share/deploy/mosquitto/service-user.sh"
CREDENTIALS = Path("etc/credstore")
SECRET = "DevOrgClientSecret"
NEWER = "0.1.1"
ORG = "http://127.0.0.1:8620"
STAND_INS: Mapping[str, str] = {
    "sudo": 'exec "$@"',
    "git": 'case $1 in clone) cp -a "$2" "$3" ;; pull) cp -a /root/newer/. . ;; *) exit 2 ;; esac',
    "nano": 'test -w "$1"',  # the example holds what logs in to the local org
    "editor": 'cat /root/drop-in >"$1"',
}


@dataclass
class Walk:
    """A node, and what was told on the way."""

    node: Node
    said: dict[str, str] = field(default_factory=dict)

    def sh(self, line: str, *, directory: str = "/root/salesforce-sync", say: str = "") -> str:
        """Type a line."""
        return self.node.run("env", "-C", directory, "bash", "-euo", "pipefail", "-c", line, say=say)

    def until_live(self) -> None:
        """The service runs, with org and broker."""
        there = "stream live, broker connected"
        until(lambda: self.node.property(SERVICE, "StatusText") == there, 60.0, say=lambda: self.node.journal(SERVICE))

    def count(self) -> int:
        """Contacts in the replica, from a snapshot of it."""
        look = (
            "import sqlite3, sys; file = sqlite3.connect('file:/var/lib/salesforce-sync/data/salesforce.db?mode=ro', "
        )
        look += "uri=True); print(*file.execute('SELECT count(*) FROM contact_live').fetchone())"
        return int(self.node.run("python3", "-c", look))

    def edit(self) -> str:
        """Create a contact in the org; its id."""
        return self.node.run(PROGRAM, "devorg", "create", "Contact", "LastName=Walker").split()[-1]

    def flows(self) -> None:
        """A change in the org arrives in the replica."""
        self.until_live()
        before = self.count()
        self.edit()
        until(lambda: self.count() == before + 1, 40.0, say=lambda: self.node.journal(SERVICE))

    def release(self) -> str:
        """The name of the one that runs."""
        return self.node.run("readlink", "-f", "/opt/salesforce-sync/current").strip().rpartition("/")[2]


Check = Callable[[Walk], object]


def nothing(_walk: Walk) -> None:
    """No preparation, or nothing to see."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A line of the document.

    Attributes:
        line: As it stands there.
        put: What stands in it for the reader to fill in -> what is typed; `{word}` is what an earlier line has told.
        keep: The last line that is printed is told to later ones by this name.
        directory: Where it is typed.
        say: What is typed into it.
        terminal: It asks for one.
        before, holds: Run around it.
    """

    line: str
    put: Mapping[str, str] = field(default_factory=dict)
    keep: str = "last"
    directory: str = "/root/salesforce-sync"
    say: str = ""
    terminal: bool = False
    before: Check = nothing
    holds: Check = nothing

    def type(self, walk: Walk) -> None:
        """Type it; it must end well."""
        self.before(walk)
        line = self.line
        for words, typed in self.put.items():
            assert words in line
            line = line.replace(words, typed.format(**walk.said))
        if self.terminal:
            line = f"EDITOR=editor script --quiet --return --command '{line}' /dev/null"
        printed = walk.sh(line, directory=self.directory, say=self.say)
        walk.said[self.keep] = (printed.strip().splitlines() or [""])[-1]
        walk.said["all"] = printed
        self.holds(walk)


def start_org(walk: Walk) -> None:
    """The local org, on the node, from a release that stays until the node is emptied."""
    walk.node.run(
        *("systemd-run", "--quiet", "--collect", "--unit=org", "--property=Restart=on-failure"),
        *(
            f"{PROGRAM.rpartition('/')[0]}/python",
            "-m",
            "connector.devorg",
            "--port",
            "8620",
            "--directory",
            "/root/org",
        ),
    )
    until(lambda: walk.node.succeeds(PROGRAM, "devorg", "info"), 60.0, say=lambda: walk.node.journal("org"))
    walk.until_live()


def subscribed(walk: Walk) -> None:
    """What the subscriber is to see, and the certificate that it needs."""
    walk.sh("cp /etc/salesforce-sync/mosquitto/tls/ca.crt .")
    again = f"while {PROGRAM} devorg create Contact LastName=Seen; do :; done"
    walk.sh(f"systemd-run --quiet --collect --unit=edits bash -c '{again}'")


def a_change_came(walk: Walk) -> None:
    walk.node.run("systemctl", "stop", "edits")
    assert '"LastName": "Seen"' in walk.said["all"] or '"LastName":"Seen"' in walk.said["all"]


def is_stored_as_the_broker_password(walk: Walk) -> None:
    """As the sentence behind it asks."""
    walk.node.put("/etc/credstore/salesforce-sync.MQTT_PASSWORD", walk.said["mqtt"])
    walk.sh("systemctl restart salesforce-sync")
    walk.flows()


def is_loaded_encrypted(walk: Walk) -> None:
    """The plain one is gone; the drop-in is the next line's."""
    (walk.node.root / CREDENTIALS / "salesforce-sync.SF_CLIENT_SECRET").unlink()
    encrypted = walk.node.root / "etc/credstore.encrypted/salesforce-sync.SF_CLIENT_SECRET"
    assert SECRET not in encrypted.read_text()
    drop_in = inline("LoadCredentialEncrypted=", ROOT / "docs" / "operations.md")
    walk.node.put("/root/drop-in", f"[Service]\n{drop_in}\n")


def runs_with_the_drop_in(walk: Walk) -> None:
    """The timer's comparison and the command line have the secret, too."""
    walk.sh("systemctl restart salesforce-sync")
    walk.flows()
    walk.sh("systemctl start salesforce-sync-verify.service && salesforce-sync verify")


def backed_up(walk: Walk) -> None:
    """By what the timer starts; a change comes behind it."""
    walk.node.run("systemctl", "start", "salesforce-sync-backup.service", "salesforce-sync-verify.service")
    copies = sorted((walk.node.root / "var/lib/salesforce-sync/data/backups").glob("salesforce-*.db"))
    walk.said["backup"] = copies[-1].name
    walk.said["backed up"] = str(walk.count())
    walk.flows()


def is_counted(walk: Walk) -> None:
    """What is there before the backup takes its place."""
    walk.said["told"] = str(walk.count())
    assert int(walk.said["told"]) > int(walk.said["backed up"])


def is_back(walk: Walk) -> None:
    assert walk.count() == int(walk.said["backed up"])


def is_caught_up(walk: Walk) -> None:
    """The org tells what came since."""
    until(lambda: walk.count() == int(walk.said["told"]), 40.0, say=lambda: walk.node.journal(SERVICE))
    walk.flows()


def is_another_card(walk: Walk) -> None:
    """Nothing of the service is left."""
    walk.said["moved"] = str(walk.count())
    walk.sh("deploy/install.sh --uninstall --purge")
    assert not (walk.node.root / "var/lib/salesforce-sync").exists()


def has_moved(walk: Walk) -> None:
    walk.sh("systemctl restart salesforce-sync")
    walk.until_live()
    assert walk.count() == int(walk.said["moved"])
    walk.flows()


def told(pattern: str) -> Check:
    """What was printed has this in it."""

    def look(walk: Walk) -> None:
        assert re.search(pattern, walk.said["all"]), walk.said["all"]

    return look


def as_before(walk: Walk) -> None:
    walk.said["release"] = walk.release()


def is_newer(walk: Walk) -> None:
    assert walk.release().startswith(NEWER)
    walk.flows()


def is_as_before(walk: Walk) -> None:
    assert walk.release() == walk.said["release"]
    walk.flows()


INSTALL = {"deploy/install.sh": "deploy/install.sh --wheels /root/wheels"}
SHORT = {"service-user.sh": USERS}
WALK = (
    Step(
        line="git clone REPOSITORY salesforce-sync && cd salesforce-sync",
        put={"REPOSITORY": "/root/repository"},
        directory="/root",
    ),
    Step(line="cp .env.example secrets && chmod 600 secrets && nano secrets"),
    Step(
        line="sudo deploy/install.sh --instance-url https://yourdomain.my.salesforce.com --secrets secrets",
        put={**INSTALL, "https://yourdomain.my.salesforce.com": ORG},
        holds=start_org,
    ),
    Step(line="shred -u secrets", holds=lambda w: w.sh("test ! -e secrets")),
    Step(line="sudo systemctl restart salesforce-sync", holds=Walk.flows),
    Step(line="sudo salesforce-sync doctor", holds=told("login")),
    Step(line="sudo salesforce-sync status", holds=told("Contact")),
    Step(line=f"sudo {USERS} add billing service", keep="password"),
    Step(
        line="mosquitto_sub -h lucidia.local -p 8883 --cafile ca.crt -u billing -P THE-PASSWORD"
        " -t 'blackroad/salesforce/change/#' -v",
        put={"THE-PASSWORD": "{password}", "mosquitto_sub": "mosquitto_sub -C 1 -W 30"},
        before=subscribed,
        holds=a_change_came,
    ),
    Step(line="service-user.sh password bridge", put=SHORT, holds=told(r"\S{32}")),
    Step(line="service-user.sh password NAME", put={**SHORT, "NAME": "billing"}, holds=told(r"\S{32}")),
    Step(line="git pull && sudo deploy/install.sh", put=INSTALL, before=as_before, holds=is_newer),
    Step(line="sudo deploy/install.sh --rollback", holds=is_as_before),
    Step(line="systemctl status salesforce-sync", holds=told("stream live, broker connected")),
    Step(line="journalctl -u salesforce-sync", holds=told("app.started")),
    Step(line="sudo salesforce-sync verify --repair", before=backed_up, holds=told("Contact")),
    Step(line="journalctl -u salesforce-sync-verify", holds=told("Contact")),
    Step(line="journalctl -u salesforce-sync-backup", holds=told(r"salesforce-\w+\.db")),
    Step(
        line="printf %s 'NEW-SECRET' | sudo install -m 600 /dev/stdin /etc/credstore/salesforce-sync.SF_CLIENT_SECRET",
        put={"NEW-SECRET": SECRET},
        holds=Walk.flows,
    ),
    Step(
        line="service-user.sh password salesforce-sync", put=SHORT, keep="mqtt", holds=is_stored_as_the_broker_password
    ),
    Step(line="sudo systemctl reload mosquitto", holds=Walk.flows),
    Step(line="sudo systemctl stop salesforce-sync", before=is_counted),
    Step(
        line="sudo salesforce-sync restore data/backups/salesforce-20261122T023000Z.db",
        put={"salesforce-20261122T023000Z.db": "{backup}"},
        holds=is_back,
    ),
    Step(line="sudo systemctl start salesforce-sync", holds=is_caught_up),
    Step(line="sudo systemctl stop salesforce-sync mosquitto"),
    Step(
        line="sudo tar -C / -cpzf /mnt/node.tar.gz var/lib/salesforce-sync var/lib/mosquitto etc/salesforce-sync"
        " etc/credstore",
        holds=is_another_card,
    ),
    Step(line="sudo tar -C / -xpzf", put={"-xpzf": "-xpzf /mnt/node.tar.gz"}),
    Step(line="sudo deploy/install.sh", put=INSTALL),
    Step(line="sudo chown -R salesforce-sync: /var/lib/salesforce-sync", holds=has_moved),
    Step(
        line="sudo systemd-creds encrypt --name=SF_CLIENT_SECRET -"
        " /etc/credstore.encrypted/salesforce-sync.SF_CLIENT_SECRET",
        say=SECRET,
        holds=is_loaded_encrypted,
    ),
    Step(line="sudo systemctl edit salesforce-sync", terminal=True),
    Step(line="sudo systemctl edit salesforce-sync-verify", terminal=True, holds=runs_with_the_drop_in),
    Step(line="sudo deploy/install.sh --uninstall", holds=lambda w: w.sh("test -e /var/lib/salesforce-sync/data")),
)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """A booted node with what comes from elsewhere: the repository, a newer one, the packages."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        for place in ("repository", "newer"):
            checkout(node.root / "root" / place)
        newer = node.root / "root" / "newer" / "pyproject.toml"
        newer.write_text(re.sub(r'(?m)^version = ".*"', f'version = "{NEWER}"', newer.read_text()))
        packages = node.root / "root" / "wheels"
        packages.mkdir()
        for file in wheels().iterdir():
            (packages / file.name).write_bytes(file.read_bytes())
        for name, does in STAND_INS.items():
            node.put(f"/usr/local/bin/{name}", f"#!/bin/bash\n{does}\n")
            (node.root / "usr/local/bin" / name).chmod(0o755)
        node.put("/etc/hosts", "127.0.0.1 localhost lucidia lucidia.local\n")
        yield Walk(node)


@pytest.mark.parametrize("step", WALK, ids=lambda step: step.line)
def test_a_line(walk: Walk, step: Step) -> None:
    """It ends well, and does what the document says of it."""
    step.type(walk)
