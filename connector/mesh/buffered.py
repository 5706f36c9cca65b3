"""A socket that takes and gives in large pieces: paho reads a byte at a time and writes a packet at a time.

Between paho's packets, whose borders it knows, it sends packets of ours, and it takes out the acknowledgements of these
and the messages that come before paho sees them.
"""

import contextlib
import errno
import socket
import ssl
from collections import deque

from connector.mesh.packets import (
    PUBACK,
    SHORT_PUBACK_BYTES,
    SUCCESS,
    Header,
    Puback,
    Published,
    header,
    puback,
    published,
    short_pubacks,
)

_READ_BYTES = 65_536
# What is not all there yet is kept until it is; a reason string alone may have 64 KiB.
_LARGEST_ACKNOWLEDGEMENT = 131_072
# A larger message is paho's: putting its pieces together here would copy it with each of them.
_LARGEST_MESSAGE = 65_536
_PUBLISH = 0x30
# Unsent beyond this is sent before more is taken; a socket that takes no more then holds paho back.
_UNSENT_BYTES = 65_536


class BufferedSocket:
    """The socket as paho uses it, over a connected one that does not block; `flush` sends what was written.

    Attributes:
        raw: The socket itself.
        messages: Those that have come and are not paho's; in front of any that is read from now on.
    """

    def __init__(self, raw: socket.socket, *, mqtt5: bool) -> None:
        self.raw = raw
        self.messages: deque[Published] = deque()
        self._mqtt5 = mqtt5
        self._read = b""
        self._at = 0
        self._left = 0  # of the packet that paho is reading
        self._cut = False  # what has been read ends within a packet's header, or one of ours
        self._acknowledgements: list[Puback] = []
        self._unsent = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        """At most so many bytes of one packet that is paho's; empty at the end of the stream.

        Raises:
            BlockingIOError, ssl.SSLWantReadError: Nothing is there now.
            OSError: The connection is broken, or what comes is no sound acknowledgement.
        """
        if not self._left:
            self._sort()
        if self._at == len(self._read) or not self._left:
            if self._acknowledgements or self.messages:
                raise BlockingIOError  # first these; what the socket has besides it tells again
            more = self.raw.recv(_READ_BYTES)
            if not more:
                return b""
            self._read, self._at, self._cut = self._read[self._at :] + more, 0, False
            if not self._left:
                self._sort()
            if not self._left:
                raise BlockingIOError
        piece = self._read[self._at : self._at + min(buffer_size, self._left)]
        self._at += len(piece)
        self._left -= len(piece)
        return piece

    def acknowledgements(self) -> list[Puback]:
        """Those that have come since this was asked last."""
        taken, self._acknowledgements = self._acknowledgements, []
        return taken

    def _sort(self) -> None:
        """At the border of two packets: take out what is ours, up to a packet that is paho's."""
        while self._at < len(self._read):
            if accepted := short_pubacks(self._read, self._at):
                self._acknowledgements += [Puback(packet_id, SUCCESS) for packet_id in accepted]
                self._at += SHORT_PUBACK_BYTES * len(accepted)
                continue
            try:
                head = header(self._read, self._at)
            except ValueError:
                self._left = len(self._read) - self._at  # paho ends the connection for it
                return
            if head is not None and head.kind == PUBACK and head.size > _LARGEST_ACKNOWLEDGEMENT:
                raise OSError(errno.EPROTO, "an acknowledgement that is too large")
            ours = head is not None and self._is_ours(head)
            if head is None or (ours and self._at + head.size > len(self._read)):
                self._cut = True
                return
            if not (ours and self._take(head)):
                self._left = head.size
                return
            self._at += head.size

    def _is_ours(self, head: Header) -> bool:
        return head.kind == PUBACK or (head.kind & 0xF0 == _PUBLISH and head.size <= _LARGEST_MESSAGE)

    def _take(self, head: Header) -> bool:
        """Take out the packet; False if it is paho's all the same."""
        if head.kind == PUBACK:
            acknowledged = puback(self._read, self._at, head)
            if acknowledged is not None:
                self._acknowledgements.append(acknowledged)
            return acknowledged is not None
        message = published(self._read, self._at, head, mqtt5=self._mqtt5)
        if message is not None:
            self.messages.append(message)
        return message is not None

    def pending(self) -> bool:
        """True if there is something to read of which the socket does not tell any more."""
        decrypted = self.raw.pending() if isinstance(self.raw, ssl.SSLSocket) else 0
        return (self._at < len(self._read) and not self._cut) or decrypted > 0

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

    def put(self, packet: bytes) -> None:
        """Keep a whole packet of ours for `flush`, behind what paho has written; there is always room."""
        self._unsent += packet

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
