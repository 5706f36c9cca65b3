"""Options of the test run and the broker that tests share the way of making."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from tests.broker import Broker, BrokerOptions, ContainerBroker, ProcessBroker, docker_problem
from tests.validated import VALIDATED

# As structlog does it by itself, but for the tracebacks: coloured ones with local variables take seconds.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# How long an example takes says something of the machine, not of the product.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")

BrokerFactory = Callable[[BrokerOptions], Awaitable[Broker]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--broker", choices=("process", "container"), default="process", help="where the MQTT broker of tests runs"
    )
    parser.addoption("--broker-image", default="eclipse-mosquitto:2", help="image for --broker=container")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What this process validated, told to the one that prints."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["validated"] = dict(VALIDATED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process of pytest-xdist validated."""
    VALIDATED.update(node.workeroutput.get("validated", {}) if hasattr(node, "workeroutput") else {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many messages of the stacks were validated against schemas/."""
    if VALIDATED:
        kinds = ", ".join(f"{count} {name}" for name, count in VALIDATED.most_common())
        terminalreporter.write_line(f"{VALIDATED.total()} messages validated against schemas/: {kinds}")


@pytest.fixture
async def make_broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerFactory]:
    """Starts brokers with options; ends them after the test."""
    made: list[Broker] = []

    async def make(options: BrokerOptions) -> Broker:
        directory = tmp_path / f"broker{len(made)}"
        directory.mkdir()
        if request.config.getoption("--broker") == "container":
            problem = docker_problem()
            if problem is not None:
                pytest.skip(problem)
            broker: Broker = ContainerBroker(directory, request.config.getoption("--broker-image"), options)
        else:
            broker = ProcessBroker(directory, options)
        made.append(broker)
        await broker.start()
        return broker

    yield make
    for broker in made:
        if isinstance(broker, ContainerBroker):
            await broker.remove()
        else:
            await broker.kill()


@pytest.fixture
async def broker(make_broker: BrokerFactory) -> Broker:
    """A broker that lets everybody do everything."""
    return await make_broker(BrokerOptions())
