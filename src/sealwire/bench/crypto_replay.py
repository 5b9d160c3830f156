"""The crypto of a handshake and nothing else: recorded once, then repeated without a handshake.

A client and a server handshake in memory with every call of crypto written down: key shares, key
schedule, MACs, signatures, chain verification.  Replaying the calls costs what the crypto costs.
Records are not among them; with either crypto a handshake protects its few records alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sealwire import dtls
from sealwire.context import Config
from sealwire.crypto import signatures
from sealwire.crypto.groups import Group, KeyShare
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.tls13 import authentication

_ROUNDS = 12
_LEAST_CALLS = 7
_USUAL = OpenSslProvider()
# Without signatures and chain.
_LEAST_CALLS_RESUMED = 4


class _Recorder(OpenSslProvider):
    """The usual provider; writes down what it is asked for."""

    def __init__(self, calls: list[Callable[[], object]]) -> None:
        self._calls = calls

    def hmac(self, hash_name: str, key: bytes, data: bytes) -> bytes:
        self._calls.append(lambda: OpenSslProvider.hmac(self, hash_name, key, data))
        return super().hmac(hash_name, key, data)

    def hkdf_extract(self, hash_name: str, salt: bytes, secret: bytes) -> bytes:
        self._calls.append(lambda: OpenSslProvider.hkdf_extract(self, hash_name, salt, secret))
        return super().hkdf_extract(hash_name, salt, secret)

    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, n: int) -> bytes:
        self._calls.append(lambda: OpenSslProvider.hkdf_expand(self, hash_name, secret, info, n))
        return super().hkdf_expand(hash_name, secret, info, n)

    def hkdf_secrets(
        self, hash_name: str, secret: bytes, infos: tuple[tuple[bytes, int], ...]
    ) -> list[Secret]:
        # As the usual provider does it, which looks whether somebody has an HKDF of his own.
        self._calls.append(lambda: _USUAL.hkdf_secrets(hash_name, secret, infos))
        return _USUAL.hkdf_secrets(hash_name, secret, infos)

    def key_share(self, group: Group) -> KeyShare:
        self._calls.append(lambda: OpenSslProvider.key_share(self, group))
        return _RecordedShare(super().key_share(group), self._calls)

    def respond(self, group: Group, peer_share: bytes) -> tuple[bytes, bytes]:
        # The base class asks for a share of ours; it is part of this call and not another one.
        self._calls.append(lambda: OpenSslProvider().respond(group, peer_share))
        return OpenSslProvider().respond(group, peer_share)


class _RecordedShare:
    def __init__(self, share: KeyShare, calls: list[Callable[[], object]]) -> None:
        self._share = share
        self._calls = calls
        self.group = share.group
        self.public = share.public

    def finish(self, peer_share: bytes) -> bytes:
        self._calls.append(lambda: self._share.finish(peer_share))
        return self._share.finish(peer_share)


class Replay:
    """A Task: the crypto of one handshake, over and over; of a resumed one, if there shall be a ticket."""

    def __init__(self, server: Config, client: Config, *, resumed: bool = False) -> None:
        self.units = 1
        self._least = _LEAST_CALLS_RESUMED if resumed else _LEAST_CALLS
        ticket = self._handshake(server, client, None) if resumed else None
        self._calls: list[Callable[[], object]] = []
        engine: Any = authentication
        engine.verify = self._verify
        try:
            self._handshake(self._recording(server), self._recording(client), ticket)
        finally:
            engine.verify = signatures.verify

    def _handshake(
        self, server_config: Config, client_config: Config, ticket: dtls.SessionTicket | None
    ) -> dtls.SessionTicket | None:
        client = dtls.Connection.client(client_config, now=0.0, server_name="localhost", ticket=ticket)
        server = dtls.Connection.server(server_config, now=0.0)
        for _ in range(_ROUNDS):
            server.receive_run(client.transmit(0.0), 0.0)
            client.receive_run(server.transmit(0.0), 0.0)
        if not (client.was_connected and server.was_connected):
            raise OSError(f"the recorded handshake did not complete: {client.error or server.error}")
        given = [event.ticket for event in client.events() if isinstance(event, dtls.TicketReceived)]
        return given[0] if given else None

    def _recording(self, config: Config) -> Config:
        def signing(sign: Callable[[Any, bytes], bytes]) -> Callable[[Any, bytes], bytes]:
            def recorded(scheme: Any, content: bytes) -> bytes:
                self._calls.append(lambda: sign(scheme, content))
                return sign(scheme, content)

            return recorded

        verifier: Any = _RecordedVerifier(config.verifier, self._calls)
        return dataclasses.replace(
            config,
            provider=_Recorder(self._calls),
            verifier=verifier,
            credentials=tuple(
                dataclasses.replace(credential, sign=signing(credential.sign))
                for credential in config.credentials
            ),
        )

    def _verify(self, *arguments: Any) -> None:
        self._calls.append(lambda: signatures.verify(*arguments))
        signatures.verify(*arguments)

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        calls = self._calls
        for _ in range(passes):
            for call in calls:
                call()

    def verify(self) -> None:
        # Two shares, two answers, a signature made and checked, a chain: anything less is no handshake.
        if len(self._calls) < self._least:
            raise ValueError("the recording holds no whole handshake")


class _RecordedVerifier:
    """The verifier of a Config; writes down the chains it judges."""

    def __init__(self, verifier: Any, calls: list[Callable[[], object]]) -> None:
        self._verifier = verifier
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)

    def verify(self, chain: Sequence[bytes], *, purpose: Any, name: str | None) -> object:
        self._calls.append(lambda: self._verifier.verify(chain, purpose=purpose, name=name))
        return self._verifier.verify(chain, purpose=purpose, name=name)
