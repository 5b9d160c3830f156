"""What the owner of a connection may ask of it in message mode (docs/stcp.md).

Whether it is in message mode is known when the handshake is over: it was asked for, and agreed on by ALPN.
Then bytes and messages are never mixed: the methods for the other kind raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealwire.errors import ConfigurationError
from sealwire.stcp.association import Association
from sealwire.stcp.messages import MessageMode

if TYPE_CHECKING:
    from sealwire.wire import Buffer


class Messaging(Association):
    """The part of :class:`sealwire.stcp.Connection` that is about messages."""

    @property
    def message_mode(self) -> bool:
        """Whether both sides agreed to speak in messages.  Raises Error before the handshake is finished."""
        self._must_be_complete()
        return self._messages is not None

    @property
    def application(self) -> str | None:
        """The application agreed on with message mode; None without a name, or without message mode."""
        name = self.session.alpn
        if not self.message_mode or name is None:
            return None
        return name.decode("ascii").partition(":")[2] or None

    def write_message(self, data: Buffer) -> None:
        """Queue one message for the peer; b"" is one as well.

        Those queued between two calls of `data_to_send` or `pending` share records.

        Raises:
            LimitReached: the message is longer than ``message_bytes``, ``send_queue_bytes`` wait already, or
                the account has no room.  Nothing was taken.
            ConfigurationError: the connection is not in message mode.
            ConnectionClosed: our direction is closed; or whatever else ended the connection.
            Error: the handshake is not finished.
        """
        if self.write_shortly(data):
            return
        self._must_be_open()
        self._mode().write(data)

    def read_message(self) -> bytes | None:
        """The oldest message that came and was not taken, b"" if it has no bytes; None when there is none.

        With None, `peer_closed` says whether it was the last.  Messages that came before a failure are
        still given out; after them the error is raised.

        Raises:
            ConfigurationError: the connection is not in message mode.
        """
        message = self._mode().take()
        if message is None and self.error is not None:
            raise self.error
        return message

    def read_messages(self) -> list[bytes]:
        """All messages that came and were not taken; as :meth:`read_message`."""
        messages = self._mode().take_all()
        if not messages and self.error is not None:
            raise self.error
        return messages

    @property
    def messages_ready(self) -> int:
        """How many messages wait in :meth:`read_message`."""
        return 0 if self._messages is None else self._messages.ready

    def go_away(self) -> None:
        """Tell the peer that we mean to close before long.  Safe to call again; messages still go and come.

        Raises as :meth:`write_message`.
        """
        self._must_be_open()
        self._mode().go_away()

    @property
    def peer_going_away(self) -> bool:
        """Whether the peer said that it means to close before long."""
        return self._messages is not None and self._messages.peer_going_away

    def ping(self, now: float) -> None:
        """Ask the peer whether it is there; :attr:`round_trip` has how long it took once it answered.

        Raises as :meth:`write_message`.
        """
        self._must_be_open()
        self._mode().ping(now)

    @property
    def round_trip(self) -> float | None:
        """Seconds from the last ping to its answer; None before."""
        return None if self._messages is None else self._messages.round_trip

    def must_be_plain(self) -> None:
        """Raise ConfigurationError if the connection is in message mode."""
        if self._messages is not None:
            raise ConfigurationError("the connection speaks in messages: use write_message and read_message")

    def _mode(self) -> MessageMode:
        if self._messages is None:
            self._must_be_complete()
            raise ConfigurationError("the connection is not in message mode: ask for it with messages=True")
        return self._messages
