"""A process that commits unit after unit and tells each number once it is committed; made to be killed.

`python -m tests.faults.store_writer FILE`
"""

import sys
from functools import partial
from pathlib import Path

from connector.model.message import Message
from connector.ports import Unit
from connector.store import Session
from tests.store_nouns import NOW_MS, WIDGET, change, command, record

ROWS = 20


def write(number: int, unit: Unit) -> None:
    """All that belongs together: rows, their changes, the position, a message, a command."""
    last = unit.append([change(n) for n in range(ROWS)])
    first = last - ROWS + 1
    unit.put(WIDGET, [record(n, version=first + n, Size__c=number, Name="x" * 200) for n in range(ROWS)])
    unit.set_cursor("stream:cometd:/data/ChangeEvents", str(number), NOW_MS)
    unit.enqueue(Message(topic="a", payload=str(number).encode()))
    unit.add_command(command(f"c{number}"))


def main() -> None:
    """Go on until killed."""
    with Session(Path(sys.argv[1])) as session:
        session.run(lambda unit: unit.define(WIDGET))
        number = int(session.run(lambda unit: unit.cursor("stream:cometd:/data/ChangeEvents")) or 0)
        while True:
            number += 1
            session.run(partial(write, number))
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
