"""The crypto of a measurement, with a switch to turn it off.

Off, everything around the crypto still runs: headers are written, messages encoded, states passed.
What the switch saves is then the crypto's part of a figure.  A row that takes its sealers,
providers and configurations from here can be sabotaged; one that does not is caught by it, since
its figure does not change.

What is off protects nothing and exists for measurements alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sealwire.context import Config
from sealwire.crypto.groups import Group, KeyShare
from sealwire.crypto.hkdf import TrafficKeys
from sealwire.crypto.providers import Aead, CryptoProvider, Mask, default_provider
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.crypto.suites import SuiteSpec
from sealwire.dtls import incoming, outgoing
from sealwire.record import protect, reference
from sealwire.record.train import MOST_BYTES, MOST_DATAGRAMS, Train
from sealwire.tls13 import authentication
from sealwire.wire import Buffer

if TYPE_CHECKING:
    from sealwire.record.reference import Entry, Opener, Sealer

_TAG = bytes(16)
_HEADER_BYTES = 5


class Crypto:
    """The real crypto."""

    on = True

    @property
    def provider(self) -> CryptoProvider:
        return default_provider()

    def sealer(self, spec: SuiteSpec, keys: TrafficKeys, epoch: int) -> Sealer:
        return protect.Sealer(self.provider, spec, keys, epoch)

    def opener(self, spec: SuiteSpec, keys: TrafficKeys, epoch: int) -> Opener:
        return protect.Opener(self.provider, spec, keys, epoch)

    def config(self, config: Config) -> Config:
        return config

    def switch_runs(self) -> None:
        """Have the connections of this process use this crypto for runs of data."""

    def remove_ciphers(self) -> None:
        """For what makes its own sealers and openers: those of this process do nothing from here on."""


class NoCrypto(Crypto):
    """Nothing is encrypted, signed, verified or derived.

    Signatures are checked by a function of the handshake engine; making one of these replaces it in
    the whole process, which must be one that does nothing else.
    """

    on = False

    def __init__(self) -> None:
        engine: Any = authentication
        engine.verify = _accept

    @property
    def provider(self) -> CryptoProvider:
        return _NothingProvider()

    def sealer(self, spec: SuiteSpec, keys: TrafficKeys, epoch: int) -> Sealer:
        # The compiled sealer calls libcrypto itself, so something else must stand in for it; its twin
        # asks the provider, and one that does nothing leaves exactly the rest.
        sealer: Any = _FramingSealer(epoch) if protect.COMPILED else None
        return sealer or reference.Sealer(_NoRecordCrypto(), spec, keys, epoch)

    def opener(self, spec: SuiteSpec, keys: TrafficKeys, epoch: int) -> Opener:
        opener: Any = _FramingOpener(epoch) if protect.COMPILED else None
        return opener or reference.Opener(_NoRecordCrypto(), spec, keys, epoch)

    def remove_ciphers(self) -> None:
        if not protect.COMPILED:
            raise OSError("only the ciphers of the compiled record layer can be taken away")
        from sealwire.bench import _no_cipher

        _no_cipher.remove()

    def config(self, config: Config) -> Config:
        verifier: Any = _NobodyVerifies(config.verifier)
        return dataclasses.replace(
            config,
            provider=self.provider,
            verifier=verifier,
            credentials=tuple(
                dataclasses.replace(credential, sign=lambda scheme, content: _TAG)
                for credential in config.credentials
            ),
        )

    def switch_runs(self) -> None:
        # They are sealed and opened here and nowhere else.
        sending: Any = outgoing
        sending.seal_trains = _frame_trains
        receiving: Any = incoming
        receiving.open_data = _unframe_trains


def crypto(on: bool) -> Crypto:
    """The crypto, or nothing in its place."""
    return Crypto() if on else NoCrypto()


class _FramingSealer:
    """Header, content, type and room for a tag: what is left of a sealer without crypto."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.sequence = 0
        self.sealed = 0

    def seal_run(self, content_type: int, messages: Sequence[Buffer]) -> list[bytes]:
        self.sequence += len(messages)
        self.sealed += len(messages)
        head = bytes((0x2C | self.epoch & 3, 0, 0)) + (len(messages[0]) + 17).to_bytes(2, "big")
        tail = bytes((content_type,)) + _TAG
        return [b"".join((head, message, tail)) for message in messages]


class _FramingOpener:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.opened = 0

    def open_run(self, datagrams: Sequence[Buffer], index: int, offset: int) -> tuple[list[Entry], int, int]:
        self.opened += len(datagrams)
        entries = [(23, index, bytes(datagram[_HEADER_BYTES:-17])) for datagram in datagrams]
        return entries, len(datagrams), 0


def _frame_trains(
    sealer: Sealer, content_type: int, messages: Sequence[bytes], block: int, longest: int
) -> list[bytes | Train]:
    """As `protect.seal_trains` for messages of one length, without crypto and without padding."""
    size = len(messages[0])
    cid = sealer.cid
    first = bytes((0x2C | (0x10 if cid else 0) | sealer.epoch & 3,))
    head = b"".join((first, cid, b"\0\0", (size + 17).to_bytes(2, "big")))
    between = bytes((content_type,)) + _TAG + head
    whole = len(head) + size + 17
    count = max(1, min(MOST_DATAGRAMS, MOST_BYTES // whole))
    return [
        Train(b"".join((head, between.join(messages[at : at + count]), between[:17])), whole)
        for at in range(0, len(messages), count)
    ]


def _unframe_trains(
    opener: Opener, datagrams: Sequence[Buffer | Train], index: int, offset: int
) -> tuple[list[bytes], list[tuple[int, int]], Entry | None, int, int, int]:
    """What the other one made; records with crypto, which end a connection, go the usual way."""
    head = _HEADER_BYTES + len(opener.cid)
    messages: list[bytes] = []
    for at in range(index, len(datagrams)):
        one = datagrams[at]
        data, size = (one.data, one.size) if isinstance(one, Train) else (one, len(one))
        if data[-16:] != _TAG:
            if at == index:
                return protect.open_data(opener, datagrams, index, offset)
            return messages, [], None, 0, at, 0
        messages += [bytes(data[start : start + size - head - 17]) for start in range(head, len(data), size)]
    return messages, [], None, 0, len(datagrams), 0


class _NoAead:
    def seal(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes:
        return bytes(data) + _TAG

    def open(self, nonce: bytes, data: Buffer, aad: Buffer) -> bytes | None:
        return bytes(data[:-16])


class _NoRecordCrypto(OpenSslProvider):
    """AEAD and mask do nothing."""

    def aead(self, spec: SuiteSpec, key: bytes) -> Aead:
        return _NoAead()

    def mask(self, spec: SuiteSpec, sn_key: bytes) -> Mask:
        return lambda sample: b"\0\0"


class _NothingShare:
    def __init__(self, group: Group, public: bytes) -> None:
        self.group = group
        self.public = public

    def finish(self, peer_share: bytes) -> bytes:
        return bytes(32)


class _NothingProvider(OpenSslProvider):
    """Key exchange and key schedule do nothing.

    Hashes stay, because a transcript is more than crypto; records of handshakes stay too, since there
    are few and they go the same way (compiled or not) with these keys as with real ones.
    """

    def hmac(self, hash_name: str, key: bytes, data: bytes) -> bytes:
        return bytes(hashlib.new(hash_name).digest_size)

    def hkdf_extract(self, hash_name: str, salt: bytes, secret: bytes) -> bytes:
        return bytes(48 if hash_name == "sha384" else 32)

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, n: int) -> bytes:
        return bytes(n)

    def key_share(self, group: Group) -> KeyShare:
        return _NothingShare(group, _public(group))

    def respond(self, group: Group, peer_share: bytes) -> tuple[bytes, bytes]:
        return _public(group), bytes(32)


def _public(group: Group) -> bytes:
    return bytes(65) if group is Group.SECP256R1 else bytes(97) if group is Group.SECP384R1 else bytes(32)


class _NobodyVerifies:
    """The verifier of a Config without its judgement."""

    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)

    def verify(self, chain: Sequence[bytes], *, purpose: object, name: str | None) -> None:
        return None

    def judge_staples(self, peer: object, staples: object, mode: object) -> None:
        return None


def _accept(public_key: object, scheme: object, signature: bytes, content: bytes) -> None:
    return None
