"""What a Context says about records: how long, how padded, and what else goes beside them (SRTP)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, TypedDict

from sealwire.crypto.srtp import SrtpProfile, parse_srtp_profiles
from sealwire.errors import ConfigurationError

# RFC 8449 section 4: what may be asked for, type byte and padding included.
_LEAST_RECORD: Final = 64
_LONGEST_RECORD: Final = (1 << 14) + 1
_LONGEST_BLOCK: Final = 1 << 14
_LONGEST_MKI: Final = 255

#: ``(content type, bytes of content) -> bytes of padding``.
PaddingCallback = Callable[[int, int], int]


class _Records(TypedDict):
    record_size_limit: int | None
    block_padding: int
    padding_callback: PaddingCallback | None
    srtp_profiles: tuple[SrtpProfile, ...]
    srtp_mki: bytes


class RecordSettings(ABC):
    """The part of :class:`Context` that is about records."""

    def __init__(self) -> None:
        self._record_size_limit: int | None = None
        self._block_padding = 0
        self._padding_callback: PaddingCallback | None = None
        self._srtp_profiles: tuple[SrtpProfile, ...] = ()
        self._srtp_mki = b""

    @abstractmethod
    def _changed(self) -> None:
        """A setting is about to change."""

    @property
    def record_size_limit(self) -> int | None:
        """The longest record wanted from peers, 64 to 16,385 bytes of content, type and padding (RFC 8449).

        For receivers with little memory.  None, the default, asks for nothing; a server answers a client that
        asks in any case.  A peer that knows the extension obeys, and sends longer records at its peril.
        """
        return self._record_size_limit

    @record_size_limit.setter
    def record_size_limit(self, size: int | None) -> None:
        if size is not None and not _LEAST_RECORD <= size <= _LONGEST_RECORD:
            raise ValueError(f"a record size limit of {size} is not in {_LEAST_RECORD}..{_LONGEST_RECORD}")
        self._changed()
        self._record_size_limit = size

    def set_block_padding(self, size: int) -> None:
        """Pad every protected record to a multiple of `size` bytes (RFC 8446 section 5.4), as in OpenSSL.

        Content and type byte together are padded, as far as a datagram or the peer's limit has room.  0 or 1
        pads nothing, and replaces a padding callback.

        Raises:
            ValueError: more than 16,384, or less than nothing.
        """
        if not 0 <= size <= _LONGEST_BLOCK:
            raise ValueError(f"blocks of {size} bytes are not in 0..{_LONGEST_BLOCK}")
        self._changed()
        self._block_padding = size
        self._padding_callback = None

    def set_record_padding_callback(self, callback: PaddingCallback | None) -> None:
        """Ask ``callback(content_type, content_bytes)`` for the padding of each protected record, in bytes.

        What a datagram or record has no room for is left out.  None goes back to no padding.  It replaces
        block padding, and costs a call into Python for each record.
        """
        if callback is not None and not callable(callback):
            raise TypeError("a padding callback must be callable or None")
        self._changed()
        self._padding_callback = callback
        self._block_padding = 0

    def use_srtp(self, profiles: str | Sequence[str], *, mki: bytes = b"") -> None:
        """Agree with the peer on keys for SRTP (RFC 5764); over datagrams only.

        Args:
            profiles: names, best first: SRTP_AEAD_AES_128_GCM, SRTP_AEAD_AES_256_GCM, SRTP_AES128_CM_SHA1_80,
                SRTP_AES128_CM_SHA1_32.  A list, or one string with ``:`` as openssl's ``-use_srtp`` has it.
                An empty list switches it off.
            mki: master key identifier to agree on, at most 255 bytes; b"" for none.

        Raises:
            ConfigurationError: an unknown profile, one named twice, or an identifier that is too long.
        """
        chosen = parse_srtp_profiles(profiles)
        if len(mki) > _LONGEST_MKI:
            raise ConfigurationError(f"a master key identifier has at most {_LONGEST_MKI} bytes")
        self._changed()
        self._srtp_profiles = chosen
        self._srtp_mki = bytes(mki)

    def _records(self) -> _Records:
        return {
            "record_size_limit": self._record_size_limit,
            "block_padding": self._block_padding,
            "padding_callback": self._padding_callback,
            "srtp_profiles": self._srtp_profiles,
            "srtp_mki": self._srtp_mki,
        }
