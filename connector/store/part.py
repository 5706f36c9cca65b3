"""What the parts of a unit share."""

import apsw


class Part:
    """Some of the methods of `ports.Unit`, on the connection whose transaction is open."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
