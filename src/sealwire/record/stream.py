"""StreamSealer and StreamOpener: TLS 1.3 records over a byte stream (RFC 8446 section 5).

Chosen like the datagram ones in `protect`, and like there the twin is the interface.  A stream
has no loss to forgive: numbers are implied, nothing is masked, and the first record that fails
ends the direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealwire.record.bounds import MAX_CONTENT_BYTES, MAX_INNER_BYTES, STREAM_HEADER_BYTES, TAG_BYTES
from sealwire.record.protect import COMPILED, uses_compiled

__all__ = [
    "MAX_CONTENT_BYTES",
    "MAX_INNER_BYTES",
    "STREAM_HEADER_BYTES",
    "TAG_BYTES",
    "StreamOpener",
    "StreamSealer",
]

if TYPE_CHECKING:
    from sealwire.record.stream_reference import StreamOpener, StreamSealer
else:
    from sealwire.record import stream_reference

    if COMPILED:
        from sealwire.record import _stream

    def StreamSealer(provider, *args, **keywords):
        """A sealer for one sending epoch; see :class:`sealwire.record.stream_reference.StreamSealer`."""
        module = _stream if uses_compiled(provider) else stream_reference
        return module.StreamSealer(provider, *args, **keywords)

    def StreamOpener(provider, *args, **keywords):
        """An opener for one receiving epoch; see :class:`sealwire.record.stream_reference.StreamOpener`."""
        module = _stream if uses_compiled(provider) else stream_reference
        return module.StreamOpener(provider, *args, **keywords)
