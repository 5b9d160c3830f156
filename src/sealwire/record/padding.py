"""How much padding goes into a record (RFC 8446 section 5.4): none, up to a block, or what a callback says.

Lengths of records tell what is said in them; padding hides that, as far as a record has room.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from sealwire.errors import Alert, ProtocolError
from sealwire.record.bounds import MAX_INNER_BYTES, block_padding

__all__ = ["MAX_INNER_BYTES", "NO_PADDING", "Padding", "padding_of"]


class Padding:
    """One policy.

    Attributes:
        block: content and type are filled up to a multiple of it; below 2 for none.
        callback: ``(content type, bytes of content) -> bytes of padding``, or None.
    """

    __slots__ = ("block", "callback")

    def __init__(self, block: int = 0, callback: Callable[[int, int], int] | None = None) -> None:
        self.block = block
        self.callback = callback

    def __bool__(self) -> bool:
        return self.block > 1 or self.callback is not None

    def of(self, content_type: int, n: int, longest: int) -> int:
        """Padding for `n` bytes of content where content, type and padding may have `longest` bytes.

        Raises:
            ProtocolError: internal_error, the callback failed.
        """
        if self.callback is None:
            return block_padding(n, self.block, longest)
        try:
            wanted = int(self.callback(content_type, n))
        except Exception as error:
            raise ProtocolError(Alert.INTERNAL_ERROR, "the padding callback failed") from error
        return max(min(wanted, longest - n - 1), 0)


@lru_cache(maxsize=16)
def padding_of(block: int, callback: Callable[[int, int], int] | None) -> Padding:
    """The policy, one object for all connections that have it."""
    return Padding(block, callback)


NO_PADDING: Final = padding_of(0, None)
