"""How fixtures make stacks."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Protocol

import pytest

from tests.broker import Broker, BrokerOptions, ContainerBroker, ProcessBroker, docker_problem
from tests.e2e import contract
from tests.e2e.stack import OBJECTS, SEED, Settings, Stack


class MakeStack(Protocol):
    """Starts broker and org; what it made is ended with the fixture."""

    def __call__(
        self,
        settings: Settings | None = None,
        *,
        seed: Mapping[str, int] | None = SEED,
        objects: tuple[str, ...] = OBJECTS,
        options: BrokerOptions | None = None,
    ) -> Stack:
        """A stack whose daemon has not been started; `seed` None: an org without records."""
        ...


@contextmanager
def _checked(stack: Stack) -> Iterator[Stack]:
    """At its end every message that its watcher has seen is held against schemas/."""
    with stack:
        yield stack
    contract.check(stack.watcher.messages(), stack.watcher.sent)


@contextmanager
def stacks(config: pytest.Config, directories: pytest.TempPathFactory) -> Iterator[MakeStack]:
    """For a fixture of any scope."""
    with ExitStack() as made:

        def make(
            settings: Settings | None = None,
            *,
            seed: Mapping[str, int] | None = SEED,
            objects: tuple[str, ...] = OBJECTS,
            options: BrokerOptions | None = None,
        ) -> Stack:
            directory = directories.mktemp("stack")
            broker: Broker
            if config.getoption("--broker") == "container":
                if problem := docker_problem():
                    pytest.skip(problem)
                broker = ContainerBroker(directory / "broker", config.getoption("--broker-image"), options)
            else:
                broker = ProcessBroker(directory / "broker", options)
            stack = made.enter_context(_checked(Stack(directory, broker, settings or {}, objects)))
            if seed:
                stack.org.seed(**seed)
            return stack

        yield make
