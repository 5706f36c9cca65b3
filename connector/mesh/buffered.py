"""A socket that takes and gives in large pieces: paho reads a byte at a time and writes a packet at a time."""

import contextlib
import socket
import ssl

_READ_BYTES = 65_536
# Unsent beyond this is sent before more is taken; a socket that takes no more then holds paho back.
_UNSENT_BYTES = 65_536


class BufferedSocket:
    """The socket as paho uses it, over a connected one that does not block; `flush` sends what was written.

    Attributes:
        raw: The socket itself.
    """

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self._read = b""
        self._at = 0
        self._unsent = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        """At most so many bytes; empty at the end of the stream.

        Raises:
            BlockingIOError, ssl.SSLWantReadError: Nothing is there now.
            OSError: The connection is broken.
        """
        if self._at == len(self._read):
            self._read, self._at = self.raw.recv(_READ_BYTES), 0
        piece = self._read[self._at : self._at + buffer_size]
        self._at += len(piece)
        return piece

    def pending(self) -> bool:
        """True if there is something to read of which the socket does not tell any more."""
        decrypted = self.raw.pending() if isinstance(self.raw, ssl.SSLSocket) else 0
        return self._at < len(self._read) or decrypted > 0

    def send(self, buffer: bytes | bytearray) -> int:
        """Keep the bytes for `flush`.

        Raises:
            BlockingIOError, ssl.SSLWantWriteError: There is no room: nothing was taken.
            OSError: The connection is broken.
        """
        if len(self._unsent) >= _UNSENT_BYTES:
            self.flush()
        self._unsent += buffer
        return len(buffer)

    def flush(self) -> None:
        """Send what was written.

        Raises:
            BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError: Not all of it could be sent now.
            OSError: The connection is broken.
        """
        while self._unsent:
            del self._unsent[: self.raw.send(self._unsent)]

    @property
    def unsent(self) -> bool:
        """True while something waits for `flush`."""
        return bool(self._unsent)

    def setblocking(self, flag: bool) -> None:
        """As of the socket."""
        self.raw.setblocking(flag)

    def fileno(self) -> int:
        """As of the socket."""
        return self.raw.fileno()

    def close(self) -> None:
        """Send what can be sent at once (paho closes behind its DISCONNECT), and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self.raw.close()
