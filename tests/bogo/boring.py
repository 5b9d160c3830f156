"""BoringSSL's habits, where the runner counts on them and neither side's RFC says more than "may".

They replace our own for the process of the shim alone, so that the tests reach what lies behind; every
difference is listed here and in README.md.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import ClassVar, Final

from sealwire.crypto import compression
from sealwire.crypto.certificates import Credential
from sealwire.dtls import flight, layer, parts
from sealwire.dtls.header import RecordNumber
from sealwire.tls13 import certificatetypes, extensions, presentation, server, tickets
from sealwire.tls13.contract import Settings
from sealwire.tls13.extensions import Extensions
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import ClientHello
from sealwire.tls13.presentation import Wishes
from sealwire.tls13.values import CertificateType
from sealwire.wire import Buffer
from tests.bogo import compressions
from tests.bogo.flags import Flags

# Where a test says nothing.
MTU_BYTES: Final = 1472
_TIMEOUT_MILLISECONDS: Final = 400


def initial_timeout(flags: Flags) -> float:
    """Seconds until the first retransmission."""
    return flags.number("-initial-timeout-duration-ms", _TIMEOUT_MILLISECONDS) / 1000


class BoringFlight(flight.Flight):
    """The timer starts anew with each flight, follows no round trip, and ACKs of a part leave it alone."""

    __slots__ = ()

    def acknowledge_all(self, now: float, answered: RecordNumber | None = None) -> list[int]:
        handles = super().acknowledge_all(now, answered)
        self.timeout = self._initial_timeout
        return handles

    def _measured(self, round_trip: float, longest: float) -> None:
        pass


class BoringLayer(layer.HandshakeLayer):
    """An ACK waits for company, unless it is a server's of the client's last flight, and lists all it knows.

    Ours goes out at once after the handshake, and names each record once.
    """

    is_server = False
    _told: tuple[RecordNumber, ...] = ()
    _finished_told = False

    def end_of_run(self, now: float) -> None:
        if not self.engine.complete:
            super().end_of_run(now)
        elif self.is_server and not self._finished_told:
            self._finished_told = True
            super().end_of_run(now)
        elif self._to_acknowledge != self._told and self._ack_deadline is None:
            self._ack_deadline = now + self._flight.timeout / 4

    def _ack_record(self, limit: int) -> bytes:
        self._told = self._to_acknowledge
        record = super()._ack_record(limit)
        if self.engine.complete:
            self._to_acknowledge += self._told
        return record


class SeenHandshake(Handshake):
    """Notes the messages it is given, for what tests ask about a peer's."""

    __slots__ = ()
    messages: ClassVar[list[bytes]] = []

    def receive(self, epoch: int, message: Buffer) -> None:
        self.messages.append(bytes(message))
        super().receive(epoch, message)


def _types(flags: Flags, name: str) -> tuple[CertificateType, ...]:
    return tuple(map(CertificateType, flags.lists.get(name, (CertificateType.X509,))))


def _offer(flags: Flags, block: Extensions) -> None:
    """Offer the types a test names, whether there is a credential for them or not."""
    for key, name in (
        (extensions.CLIENT_CERTIFICATE_TYPES, "-available-client-cert-types"),
        (extensions.SERVER_CERTIFICATE_TYPES, "-accepted-peer-cert-types"),
    ):
        types = _types(flags, name)
        if types != (CertificateType.X509,):
            block.add(key, types)


class BoringTypes:
    """A server goes by the order of its own credentials, and names the type again where it resumes.

    Ours goes by the client's list, and names none where no certificate is shown.
    """

    _choose = staticmethod(presentation.choose)
    _extend = staticmethod(server._encrypted_extensions)
    _type: CertificateType | None = None

    @classmethod
    def choose(cls, settings: Settings, server_name: str | None, wishes: Wishes) -> Credential | None:
        found = None
        kinds = dict.fromkeys(map(presentation.type_of, settings.credentials))
        for kind in (kind for kind in kinds if kind in wishes.types):
            found = found or cls._choose(settings, server_name, replace(wishes, types=(kind,)))
        found = found or cls._choose(settings, server_name, wishes)
        cls._type = None if found is None else presentation.type_of(found)
        return found

    @classmethod
    def extend(cls, hello: ClientHello, facts: server.Negotiated, *, early_accepted: bool) -> Extensions:
        block = cls._extend(hello, facts, early_accepted=early_accepted)
        asked = extensions.SERVER_CERTIFICATE_TYPES.code in hello.extensions
        if asked and facts.psk is not None and cls._type is not None:
            block.add(extensions.SERVER_CERTIFICATE_TYPE, cls._type)
        return block


def adopt(flags: Flags) -> None:
    """Do as BoringSSL from now on."""
    BoringLayer.is_server = "-server" in flags
    policies: dict[ModuleType, dict[str, object]] = {
        layer: {
            "Flight": BoringFlight,
            # An ACK lists all the numbers we remember.
            "_ACK_DATAGRAM_BYTES": MTU_BYTES,
        },
        parts: {"HandshakeLayer": BoringLayer},
        # A flight goes out at once, however long.
        flight: {"RECORDS_PER_TRANSMISSION": 1 << 20},
    }
    # Ours follow from what there is to show and whom to trust.
    accepted = _types(flags, "-accepted-peer-cert-types")
    policies[certificatetypes] = {"accepted": lambda settings: accepted}
    # The algorithms are the runner's, and one that makes a certificate longer is used, too.
    policies[compression] = {"_codecs": lambda: compressions.CODECS}
    policies[presentation] = {"worth_sending": lambda compressed, message: True}
    if "-available-client-cert-types" in flags.lists:
        policies[certificatetypes]["offer"] = lambda settings, block: _offer(flags, block)
    if "-server" in flags:
        policies[presentation]["choose"] = BoringTypes.choose
        policies[server] = {"_encrypted_extensions": BoringTypes.extend}
    if "-reverify-on-resume" not in flags:
        # We look at certificates again on every resumption.
        policies[tickets] = {"still_accepted": lambda *arguments: True}
    for module, changes in policies.items():
        for name, value in changes.items():
            assert hasattr(module, name), f"{module.__name__} has no {name} to stand in for"
            setattr(module, name, value)
