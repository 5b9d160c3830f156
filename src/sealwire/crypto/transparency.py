"""Signed certificate timestamps (RFC 6962 section 3.3): a log's promise to publish a certificate.

A server has them from its certificate authority or from the logs, and may show them beside its
certificate to peers that ask.  They are carried and handed to the application, which knows the logs it
trusts; nothing here judges them.  Each stays the bytes it came as.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealwire.errors import ConfigurationError, ProtocolError
from sealwire.wire import Reader, Writer, decode_error

__all__ = ["decode_timestamps", "encode_timestamps", "parse_timestamps", "read_timestamps"]


def decode_timestamps(reader: Reader) -> tuple[bytes, ...]:
    """A SignedCertificateTimestampList: at least one, and none of them empty; else decode_error."""
    found = read_timestamps(reader)
    if not found:
        raise decode_error("signed_certificate_timestamp")
    return found


def read_timestamps(reader: Reader) -> tuple[bytes, ...]:
    """The same where there may be none."""
    entries = reader.sub16()
    found = []
    while entries.remaining:
        found.append(entries.vector16(low=1))
    return tuple(found)


def encode_timestamps(writer: Writer, timestamps: Sequence[bytes]) -> None:
    """The same list; each of 1 to 65,535 bytes, and 65,533 in all with two bytes more for each."""
    with writer.length16():
        for timestamp in timestamps:
            writer.vector16(timestamp)


def parse_timestamps(data: bytes) -> tuple[bytes, ...]:
    """The timestamps of a SignedCertificateTimestampList, as files hold it; none of empty `data`.

    Raises:
        ConfigurationError: `data` is something else.
    """
    if not data:
        return ()
    # It goes into an extension, whose own length has two bytes.
    reader = Reader(data, "signed certificate timestamps")
    try:
        found = decode_timestamps(reader)
        reader.finish()
    except ProtocolError:
        raise ConfigurationError(
            "the certificate timestamps are no SignedCertificateTimestampList: pass the bytes of RFC 6962"
        ) from None
    if len(data) > 0xFFFF:
        raise ConfigurationError("the certificate timestamps take more than 65,535 bytes: leave some out")
    return found
