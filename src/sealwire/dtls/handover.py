"""An established association as sealed bytes, for another process to go on with.

`export` moves it: the process that had it has it no more.  A *checkpoint* is for crashes: the process
goes on, within a reserve of record numbers that a restored association skips, so that no number is
used twice whatever the other one did; and it holds everything back while what it would send rests
on state that no checkpoint has (our and the peer's handshake messages after the handshake).

Every state has an association's name and a generation, which rises with each state and makes a
jump with each import.  Importing asks the caller's `claim`, a compare-and-swap in a place that all
processes share: a generation is claimed once, and with it all before it, and all that the process
before could still write.  docs/hand-over.md says what may still replay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealwire.crypto.hkdf import Secret
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.dtls.epochs import KeptKeys
from sealwire.errors import ConfigurationError, Error, ProtocolError
from sealwire.tls13.flavor import DTLS
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.moved import decode_engine, encode_engine
from sealwire.wire import Reader, Writer

if TYPE_CHECKING:
    from sealwire.context import Config
    from sealwire.crypto.providers import CryptoProvider

#: Whether this process, and no other, goes on from this generation (of the association of this name).
#: True at most once for all generations up to :func:`last_of_its_process` of it, and never for one below
#: a generation that was stored later.
Claim = Callable[[bytes, int], bool]

#: Record numbers are 16 bits on the wire; a peer makes sense of one that is less than 2^15 ahead of what
#: it saw last, and half of that is kept for what the network loses.
MAX_RESERVE: Final = 1 << 14
KEY_BYTES: Final = 32

_MAGIC: Final = b"SWDA\x01"
_SEAL: Final = SUITES[CipherSuite.TLS_AES_256_GCM_SHA384]
_NONCE_BYTES: Final = 12
NAME_BYTES: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class Moved:
    """An association between two processes.

    Attributes:
        name: of the association, the same for all its life; 16 bytes.
        generation: how often it was imported before.
        engine: the handshake engine.
        sending, receiving: keys with the numbers to go on from; of receiving epochs the newest comes first.
        searched: numbers of the peer may be far ahead of what `receiving` says.
        cids: state of the connection ids, of :meth:`sealwire.dtls.cid.CidPool.freeze`.
        next_seq, next_peer_seq: of handshake messages.
        flight: handshake messages not acknowledged: epoch, message, handle; the last has next_seq - 1.
        mtu: largest datagram.
        send_queue, receive_queue: messages on their way between network and application.
        known_as: what an Endpoint knew the first hello by.
    """

    name: bytes
    generation: int
    engine: Handshake
    sending: KeptKeys
    receiving: tuple[KeptKeys, ...]
    searched: bool
    cids: bytes
    next_seq: int
    next_peer_seq: int
    flight: tuple[tuple[int, bytes, int], ...]
    mtu: int
    send_queue: tuple[bytes, ...]
    receive_queue: tuple[bytes, ...]
    known_as: bytes = b""


def check_key(key: bytes) -> None:
    """ValueError unless `key` can seal a state."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key for states has {KEY_BYTES} bytes, not {len(key)}")


def seal(moved: Moved, key: bytes, provider: CryptoProvider) -> bytes:
    """`moved` under `key`; name and generation can be read without it, and not be changed."""
    head = _MAGIC + moved.name + moved.generation.to_bytes(8, "big")
    nonce = provider.random(_NONCE_BYTES)
    writer = Writer()
    encode(writer, moved)
    plain = Secret.taking(writer.finish())
    return head + nonce + provider.aead(_SEAL, key).seal(nonce, plain, head)


def label(state: bytes) -> tuple[bytes, int]:
    """Name and generation of a sealed state, as `claim` is asked for them.

    Raises:
        ConfigurationError: `state` is none.
    """
    if len(state) <= len(_MAGIC) + NAME_BYTES + 8 + _NONCE_BYTES or not state.startswith(_MAGIC):
        raise ConfigurationError("this is no state of an association: pass what export_state() gave")
    name = state[len(_MAGIC) :][:NAME_BYTES]
    return name, int.from_bytes(state[len(_MAGIC) + NAME_BYTES :][:8], "big")


def last_of_its_process(generation: int) -> int:
    """The highest generation the process could give a state that made one of `generation`."""
    return generation | (1 << 32) - 1


def unseal(state: bytes, key: bytes, config: Config, claim: Claim) -> Moved:
    """What :func:`seal` sealed, once `claim` gave it to this process.

    Raises:
        ConfigurationError: `state` is none, or was changed, or is under another key.
        Error: somebody imported this generation before.
    """
    check_key(key)
    name, generation = label(state)
    at = len(_MAGIC) + NAME_BYTES + 8
    nonce, head = state[at : at + _NONCE_BYTES], state[:at]
    plain = config.provider.aead(_SEAL, key).open(nonce, state[at + _NONCE_BYTES :], head)
    if plain is None:
        raise ConfigurationError("the state does not open: it was changed, or the key is another")
    try:
        # What the process before writes from now on stays below.
        reader = Reader(plain, "state of an association")
        moved = decode(reader, name, last_of_its_process(generation) + 1, config)
        reader.finish()
    except ProtocolError:
        raise ConfigurationError("the state was written by another version of sealwire") from None
    # Last, so that a state that cannot be used is not used up.
    if not claim(name, generation):
        raise Error("this association was imported before: only one process may go on with it")
    return moved


def encode(writer: Writer, moved: Moved) -> None:
    """Write `moved` down, all but its name and generation."""
    encode_engine(writer, moved.engine)
    moved.sending.encode(writer)
    with writer.length16():
        for keys in moved.receiving:
            keys.encode(writer)
    writer.u8(moved.searched)
    writer.vector16(moved.cids)
    writer.u24(moved.next_seq)
    writer.u24(moved.next_peer_seq)
    with writer.length24():
        for epoch, message, handle in moved.flight:
            writer.u16(epoch)
            writer.u32(handle)
            writer.vector24(message)
    writer.u16(moved.mtu)
    for queue in (moved.send_queue, moved.receive_queue):
        with writer.length24():
            for message in queue:
                writer.vector24(message)
    writer.vector8(moved.known_as)


def decode(reader: Reader, name: bytes, generation: int, config: Config) -> Moved:
    """What :func:`encode` wrote; ProtocolError(decode_error) for anything else."""
    engine = decode_engine(reader, config, DTLS)
    sending = KeptKeys.decode(reader)
    block = reader.sub16()
    receiving = []
    while block.remaining:
        receiving.append(KeptKeys.decode(block))
    searched, cids = bool(reader.u8()), reader.vector16()
    next_seq, next_peer_seq = reader.u24(), reader.u24()
    block = reader.sub24()
    flight = []
    while block.remaining:
        epoch, handle = block.u16(), block.u32()
        flight.append((epoch, block.vector24(), handle))
    mtu = reader.u16()
    queues = []
    for _ in range(2):
        block = reader.sub24()
        queue = []
        while block.remaining:
            queue.append(block.vector24())
        queues.append(tuple(queue))
    known_as = reader.vector8()
    return Moved(
        name,
        generation,
        engine,
        sending,
        tuple(receiving),
        searched,
        cids,
        next_seq,
        next_peer_seq,
        tuple(flight),
        mtu,
        queues[0],
        queues[1],
        known_as,
    )
