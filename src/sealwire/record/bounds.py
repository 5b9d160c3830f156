"""How long a record and its parts may be, and the refusals of what cannot be; for both layers alike."""

from __future__ import annotations

from typing import Final

from sealwire.errors import Alert, ProtocolError

# RFC 8446 section 5.1 and 5.4: content is at most 2^14 bytes, and padding does not make room for
# more: content, type and padding together are at most one byte longer.
MAX_CONTENT_BYTES: Final = 1 << 14
MAX_INNER_BYTES: Final = MAX_CONTENT_BYTES + 1
# The longest tag of any suite; TLS_AES_128_CCM_8_SHA256 has half of it.
TAG_BYTES: Final = 16
MAX_CID_BYTES: Final = 255
# RFC 9147 section 4.2.3: the mask is computed from this many bytes of ciphertext.
SAMPLE_BYTES: Final = 16
# RFC 8446 section 5.3: 64 bits that never wrap; the last value stays unused, as the next one.
MAX_STREAM_SEQUENCE: Final = (1 << 64) - 2
STREAM_HEADER_BYTES: Final = 5


def internal_error(reason: str) -> ProtocolError:
    """The error of a sealer that cannot go on."""
    return ProtocolError(Alert.INTERNAL_ERROR, reason)


def check_content(content_type: int, inner_bytes: int, padding: int) -> None:
    """ValueError unless a record can hold `inner_bytes` (content and padding) of this type."""
    if not 1 <= content_type <= 255:
        raise ValueError(f"content type {content_type} is not in 1..255")
    if padding < 0:
        raise ValueError(f"padding of {padding} bytes is negative")
    if inner_bytes > MAX_CONTENT_BYTES:
        raise ValueError(
            f"a record holds {MAX_CONTENT_BYTES} bytes of content and padding, not {inner_bytes}"
        )


def block_padding(n: int, block: int, longest: int) -> int:
    """Padding that fills `n` bytes of content and the type up to a multiple of `block`.

    No more than `longest` bytes of content, type and padding allow.
    """
    if block < 2:
        return 0
    inner = n + 1
    return max(min(-(-inner // block) * block, longest) - inner, 0)


def check_block(block: int, longest: int) -> None:
    """ValueError unless records may be padded so."""
    if block < 0 or not 0 <= longest <= MAX_INNER_BYTES:
        raise ValueError(f"blocks of {block} bytes, in records of {longest}, cannot be")


def check_start(cid: bytes, number: int, lowest: int, highest: int) -> None:
    """ValueError unless an epoch can have this connection id and start from this number."""
    # RFC 9147 section 9: opaque cid<0..2^8-1>.
    if len(cid) > MAX_CID_BYTES:
        raise ValueError(f"a connection id has at most {MAX_CID_BYTES} bytes, not {len(cid)}")
    if not lowest <= number <= highest:
        raise ValueError(f"record number {number} is not in {lowest}..{highest}")
