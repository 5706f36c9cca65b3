"""Who may import whom: arrows point one way, each library has one importer, and nothing goes in circles."""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

OURS = "connector"
TREE = Path(__file__).parents[2]

NOUNS = frozenset({"model", "errors", "ports"})
DOORS = frozenset({"salesforce", "mesh", "store"})
WAYS = frozenset({"inbound", "outbound", "serve", "mirror"})
# Everything directly below connector/ is named here with what it may import besides itself.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "model": frozenset(),
    "errors": frozenset({"model"}),
    "ports": frozenset({"model", "errors"}),
    "settings": frozenset({"model", "errors"}),
    "logs": frozenset(),
    "reference": frozenset({"settings"}),
    "schemas": frozenset({"model", "mesh", "outbound", "serve", "settings"}),
    **dict.fromkeys(DOORS, NOUNS | {"settings"}),
    "salesforce": NOUNS | {"settings", "eventbus"},
    # What Salesforce publishes, as generated; no code of ours.
    "eventbus": frozenset(),
    **dict.fromkeys(WAYS, NOUNS),
    "listener": frozenset({"errors"}),
    "web": NOUNS | {"overview", "serve", "listener"},
    "metrics": NOUNS | {"serve", "listener"},
    # The local org shares no code with the rest: what both would get wrong the same way, no test could see.
    "devorg": frozenset({"eventbus"}),
    "demo": NOUNS | DOORS | {"settings"},
    "client": NOUNS | {"store", "mesh", "settings", "app"},
    "app": NOUNS | DOORS | WAYS | {"settings", "schemas", "metrics", "overview", "web"},
    "overview": NOUNS | {"store", "mesh", "settings"},
    "doctor": NOUNS | DOORS | {"settings", "app"},
    "cli": NOUNS | DOORS | {"settings", "logs", "app", "doctor", "demo", "overview"},
    "__main__": frozenset({"cli"}),
    "__init__": frozenset({"client"}),
}
# The command `salesforce-sync devorg` runs the local org; the demo runs it as a process.
MODULES_MAY_IMPORT = {("connector.cli.devorg.main", "devorg")}

# Library -> who may import it: parts or single modules.
IMPORTERS: Mapping[str, frozenset[str]] = {
    "apsw": frozenset({"store"}),
    "paho": frozenset({"mesh"}),
    "simple_salesforce": frozenset({"salesforce"}),
    "aiosfstream_ng": frozenset({"salesforce"}),
    "aiocometd_ng": frozenset({"salesforce"}),
    "requests": frozenset({"salesforce", "connector.cli.devorg.running"}),
    "grpc": frozenset({"salesforce", "devorg", "eventbus"}),
    "fastavro": frozenset({"salesforce", "devorg"}),
    "google": frozenset({"eventbus"}),
    "yaml": frozenset({"connector.schemas.__main__"}),
    "prometheus_client": frozenset({"metrics"}),
    # Two SQLite libraries in one process undo each other's file locks: whoever opens the replica uses apsw.
    "sqlite3": frozenset({"devorg", "demo"}),
}
# Commands are imported by name when they run; anywhere else an import by name would hide an arrow.
IMPORTS_BY_NAME = "connector.cli.main"


@dataclass(frozen=True, slots=True)
class Arrow:
    """`module` imports `target`: a module of ours, or anything else by its full name.

    Attributes:
        for_types: Imported under `if TYPE_CHECKING` alone.
    """

    module: str
    target: str
    where: str
    for_types: bool = False


def arrows_of(tree: Path) -> list[Arrow]:
    """Every import below `tree`/connector, those inside functions and for type checking included."""
    files = {_module_name(path.relative_to(tree)): path for path in sorted((tree / OURS).rglob("*.py"))}
    return [arrow for module, path in files.items() for arrow in _arrows_of_file(module, path, files, tree)]


@cache
def our_arrows() -> Sequence[Arrow]:
    """Every import of the program."""
    return arrows_of(TREE)


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _arrows_of_file(module: str, path: Path, files: Mapping[str, Path], tree: Path) -> Iterator[Arrow]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    text = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {node for test in ast.walk(text) if _checks_types(test) for node in ast.walk(test)}
    for node in ast.walk(text):
        for target in _targets(node, package, files):
            where = f"{path.relative_to(tree)}:{getattr(node, 'lineno', 0)}"
            yield Arrow(module, target, where, for_types=node in for_types)


def _checks_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _targets(node: ast.AST, package: str, files: Mapping[str, Path]) -> Iterator[str]:
    match node:
        case ast.Import(names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(named, names, level):
            base = ".".join([*package.split(".")[: package.count(".") + 2 - level], named or ""]).rstrip(".")
            source = base if level else named or ""
            for alias in names:
                # `from package import module` is an arrow to the module, anything else one to where it is looked up.
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in files else source
        case ast.Call(ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module")):
            yield "importlib.import_module"


def violations(arrows: Iterable[Arrow]) -> list[str]:
    """One line per arrow that no rule allows."""
    return [f"{arrow.where}: {problem}" for arrow in arrows if (problem := _problem(arrow))]


def _problem(arrow: Arrow) -> str | None:
    part, target = _part(arrow.module), arrow.target
    if target == "importlib.import_module":
        return None if arrow.module == IMPORTS_BY_NAME else "imports a module by name"
    if part not in MAY_IMPORT:
        return f"{part} has no rule in MAY_IMPORT"
    if target != OURS and not target.startswith(f"{OURS}."):
        importers = IMPORTERS.get(target.partition(".")[0])
        allowed = importers is None or bool({part, arrow.module} & importers)
        return None if allowed else f"{arrow.module} must not import {target}"
    named = _part(target)
    if named == part or named in MAY_IMPORT[part] or (arrow.module, named) in MODULES_MAY_IMPORT:
        return None
    return f"{part} must not import {named}"


def _part(module: str) -> str:
    """What stands directly below connector/: a folder's or a module's name."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def circle(arrows: Iterable[Arrow]) -> list[str]:
    """Modules of ours that import each other in a circle when the program runs, or an empty list."""
    graph: dict[str, set[str]] = {}
    for arrow in arrows:
        if arrow.target.startswith(f"{OURS}.") and not arrow.for_types:
            graph.setdefault(arrow.module, set()).add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_arrow_points_the_wrong_way() -> None:
    """Doors and ways know the nouns alone; only app knows all; each library has its one door."""
    assert violations(our_arrows()) == []


def test_nothing_imports_itself_in_a_circle() -> None:
    """A module can be read, and tested, with what stands below it."""
    assert circle(our_arrows()) == []


def test_folders_of_the_local_org_point_one_way() -> None:
    """Its folders and the modules beside them stand in floors, imports for type checking included."""
    org = f"{OURS}.devorg."
    folded = [
        Arrow(_below(org, arrow.module), _below(org, arrow.target), arrow.where)
        for arrow in our_arrows()
        if arrow.module.startswith(org) and arrow.target.startswith(org)
    ]
    assert circle(arrow for arrow in folded if arrow.module != arrow.target) == []


def _below(folder: str, module: str) -> str:
    return folder + module.removeprefix(folder).partition(".")[0]


def test_every_rule_is_about_something_that_exists() -> None:
    """A folder or library that has gone takes its rule with it."""
    arrows = our_arrows()
    assert {_part(_module_name(p.relative_to(TREE))) for p in (TREE / OURS).rglob("*.py")} == set(MAY_IMPORT)
    assert {arrow.target.partition(".")[0] for arrow in arrows} >= set(IMPORTERS)
    assert {(arrow.module, _part(arrow.target)) for arrow in arrows} >= MODULES_MAY_IMPORT


def _made_up(tree: Path, files: Mapping[str, str]) -> list[Arrow]:
    sound = {
        "connector/__init__.py": "",
        "connector/model/__init__.py": "",
        "connector/model/ids.py": "import re\n",
        "connector/errors.py": "from connector.model import ids\n",
        "connector/store/database.py": "import apsw\nfrom connector.errors import StoreFull\n",
        "connector/inbound/merge.py": "from connector.model.ids import RecordId\n",
        "connector/app.py": "from connector.store import database\nimport connector.inbound.merge\n",
        "connector/cli/devorg/main.py": "from connector.devorg.server import DevOrg\n",
        "connector/cli/devorg/running.py": "import requests\n",
        "connector/devorg/server.py": "from . import bus\n",
        "connector/devorg/bus.py": "import sqlite3\n",
    }
    for name, text in {**sound, **files}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    return arrows_of(tree)


def test_a_sound_tree_has_no_violations(tmp_path: Path) -> None:
    """The rules let pass what the house style shows."""
    arrows = _made_up(tmp_path, {})
    assert violations(arrows) == []
    assert circle(arrows) == []
    assert Arrow("connector.devorg.server", "connector.devorg.bus", "connector/devorg/server.py:1") in arrows


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("model/record.py", "from connector.errors import StoreFull", "model must not import errors"),
        ("inbound/poll.py", "import connector.store.database", "inbound must not import store"),
        ("inbound/poll.py", "from connector.store import database", "inbound must not import store"),
        ("inbound/poll.py", "from connector import store", "inbound must not import store"),
        ("inbound/poll.py", "from ..store import database", "inbound must not import store"),
        ("inbound/poll.py", "from .. import app", "inbound must not import app"),
        ("inbound/poll.py", "def f():\n    from connector.outbound import x", "inbound must not import outbound"),
        ("serve/relay.py", "if TYPE_CHECKING:\n    import connector.inbound.merge", "serve must not import inbound"),
        ("serve/relay.py", "from connector.settings import Settings", "serve must not import settings"),
        ("store/unit.py", "from connector.mesh import topics", "store must not import mesh"),
        ("mesh/link.py", "import apsw", "connector.mesh.link must not import apsw"),
        ("outbound/writer.py", "from paho.mqtt import client", "connector.outbound.writer must not import paho.mqtt"),
        ("cli/doctor.py", "import requests", "connector.cli.doctor must not import requests"),
        ("cli/doctor.py", "from connector.devorg.server import DevOrg", "cli must not import devorg"),
        ("demo/parts.py", "import connector.devorg", "demo must not import devorg"),
        ("devorg/rest.py", "from connector.errors import StoreFull", "devorg must not import errors"),
        ("devorg/rest.py", "from connector import SFSync", "devorg must not import __init__"),
        ("app.py", "from connector.cli import main", "app must not import cli"),
        ("helpers/text.py", "import re", "helpers has no rule in MAY_IMPORT"),
        ("serve/relay.py", "import importlib\nimportlib.import_module('connector.store')", "imports a module by name"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, path: str, text: str, problem: str) -> None:
    """Each rule fails on a tree that breaks it, however the import is written."""
    (tmp_path / "connector" / "store").mkdir(parents=True)
    (tmp_path / "connector" / "store" / "__init__.py").write_text("", encoding="utf-8")
    found = violations(_made_up(tmp_path, {f"connector/{path}": text + "\n"}))
    assert len(found) == 1, found
    assert found[0].startswith(f"connector/{path}:")
    assert found[0].endswith(problem)


def test_a_circle_is_found(tmp_path: Path) -> None:
    """Two modules of one folder that need each other to run are one module."""
    arrows = _made_up(
        tmp_path,
        {
            "connector/inbound/poll.py": "from connector.inbound import load\n",
            "connector/inbound/load.py": "def f():\n    from connector.inbound.poll import Poller\n",
        },
    )
    assert violations(arrows) == []
    assert set(circle(arrows)) == {"connector.inbound.poll", "connector.inbound.load"}


def test_the_name_of_a_type_makes_no_circle(tmp_path: Path) -> None:
    """Functions that were moved out of a class's module may name the class."""
    arrows = _made_up(
        tmp_path,
        {
            "connector/inbound/poll.py": "from connector.inbound import load\n",
            "connector/inbound/load.py": "if TYPE_CHECKING:\n    from connector.inbound.poll import Poller\n",
        },
    )
    assert circle(arrows) == []
