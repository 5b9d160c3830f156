"""The client's side, in protocol order (RFC 8446 sections 2 and 4).

ClientHello            ->
                       <- [HelloRetryRequest, then ClientHello again]
                       <- ServerHello
                       <- EncryptedExtensions, [CertificateRequest]
                       <- Certificate, CertificateVerify, Finished
[Certificate,
[CertificateVerify]],
Finished               ->
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sealwire.crypto.certificates import Purpose
from sealwire.crypto.groups import HYBRID_GROUPS, Group, KeyShare
from sealwire.crypto.names import server_name_indication
from sealwire.crypto.psk import PskMode
from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import Alert, ConfigurationError, HandshakeError
from sealwire.tls13 import acceptance, agreements, certificatetypes, early, presentation, psk
from sealwire.tls13 import extensions as ext
from sealwire.tls13.acceptance import Asked, Presented
from sealwire.tls13.authentication import (
    PeerAuthenticated,
    authenticate,
    by_psk,
    finished_message,
    verify_finished,
)
from sealwire.tls13.certificatetypes import AgreedTypes
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    EPOCH_HANDSHAKE,
    EPOCH_PLAIN,
    ConnectionIds,
    Direction,
    Exchange,
    Session,
    Settings,
)
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.grease import greased
from sealwire.tls13.messages import (
    CertificateRequest,
    ClientHello,
    EncryptedExtensions,
    HandshakeType,
    ServerHello,
)
from sealwire.tls13.presentation import Wishes
from sealwire.tls13.psk import Candidate
from sealwire.tls13.schedule import ApplicationStage, EarlyStage, HandshakeStage, deriver_of
from sealwire.tls13.serverhello import check_hello, older_version
from sealwire.tls13.states import Connected, State
from sealwire.tls13.tickets import SessionTicket
from sealwire.tls13.transcript import Transcript, message_hash
from sealwire.tls13.values import CertificateType, KeyShareEntry
from sealwire.wire import Reader


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the client wants to talk to, and how it wants to be written to."""

    #: Reference name for the server's certificate; None where the caller opted out of names.
    server_name: str | None
    #: The connection id we want to receive; None not to offer the extension (RFC 9146).
    connection_id: bytes | None
    #: What the server_name extension carries: no addresses, no final dot (RFC 6066 section 3).
    sni: str | None
    #: What an earlier connection to the same server left, to resume by; used once.
    ticket: SessionTicket | None

    @classmethod
    def checked(
        cls,
        settings: Settings,
        server_name: str | None,
        connection_id: bytes | None,
        ticket: SessionTicket | None,
    ) -> Target:
        """ConfigurationError for what is no name, and where names are checked for want of one.

        The latter is the class of CVE-2025-27809.
        """
        # Where keys are offered there may be no name; a server that does not take them then fails.
        # Where raw keys alone are trusted there is no certificate that a name could stand in.
        if (
            server_name is None
            and settings.check_hostname
            and settings.psk_client is None
            and CertificateType.X509 in certificatetypes.accepted(settings)
        ):
            raise ConfigurationError(
                "no server name to check the certificate for: give one, or set check_hostname to False"
            )
        return cls(server_name, connection_id, server_name_indication(server_name), ticket)


@dataclass(frozen=True, slots=True)
class Offer:
    """A ClientHello as sent, and the private halves of its key shares."""

    hello: ClientHello
    message: bytes
    shares: dict[Group, KeyShare]
    psks: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What ServerHello decided."""

    target: Target
    offer: Offer
    spec: SuiteSpec
    #: None with a pre-shared key alone (psk_ke).
    group: Group | None
    psk: Candidate | None
    retried: bool


def start(exchange: Exchange, target: Target) -> State:
    """Send the first ClientHello."""
    settings = exchange.settings
    exchange.client_random = exchange.provider.random(32)
    # RFC 9147 section 5.3 [9147-5.3-5]: DTLS leaves the session id empty.
    session_id = exchange.provider.random(32) if exchange.flavor.compatibility_mode else b""
    psks = psk.candidates(exchange, target.server_name, target.ticket)
    needs_exchange = psk.exchange_needed(settings, psks)
    groups = _first_shares(exchange) if needs_exchange else ()
    # RFC 9846 section 4.3.8 [8446-KS-7]: made for this connection alone.
    shares = {group: exchange.provider.key_share(group) for group in groups}
    block = Extensions(Where.CLIENT_HELLO)
    # supported_versions and, in a second hello, cookie stand before everything long, so that both
    # lie in the first fragment of a split hello (docs/design.md, journey c).
    block.add(ext.SUPPORTED_VERSIONS, (exchange.flavor.version,))
    if target.sni is not None:
        block.add(ext.SERVER_NAME, target.sni)
    if needs_exchange:
        block.add(ext.SUPPORTED_GROUPS, settings.groups)
        block.add(ext.SIGNATURE_ALGORITHMS, settings.signature_schemes)
        acceptance.ask(settings, block)
        certificatetypes.offer(settings, block)
    if settings.alpn:
        block.add(ext.ALPN, settings.alpn)
    agreements.offer(exchange, block)
    if target.connection_id is not None:
        # RFC 9147 section 5.1 [9147-5.1-13]
        block.add(ext.CONNECTION_ID, target.connection_id)
        # RFC 9853 section 3: only together with connection ids.
        block.add(ext.RETURN_ROUTABILITY, True)
    if needs_exchange:
        # RFC 8446 section 9.2: with supported_groups, and not without.
        block.add(ext.KEY_SHARES, _entries(shares))
    early_offered = early.offered_by(exchange, psks)
    if early_offered:
        block.add(ext.EARLY_DATA, True)
    psk.offer(exchange, block, psks)
    hello = ClientHello(
        legacy_version=exchange.flavor.legacy_version,
        random=exchange.client_random,
        legacy_session_id=session_id,
        legacy_cookie=b"",  # RFC 9147 sections 5.1 and 5.3 [9147-5.1-3, 9147-5.3-6]
        suites=settings.suites,
        compression_methods=b"\0",
        extensions=block,
    )
    if settings.grease:
        hello = greased(exchange.provider, hello)
    offer = Offer(*psk.with_binders(exchange, hello, psks, None), shares, psks)
    exchange.send(EPOCH_PLAIN, offer.message)
    if early_offered:
        early.begin(exchange, psks[0], offer.message)
    return ExpectServerHello(exchange, target, offer)


def _first_shares(exchange: Exchange) -> tuple[Group, ...]:
    settings = exchange.settings
    if settings.key_shares is not None:
        return settings.key_shares
    classical = next((group for group in settings.groups if group not in HYBRID_GROUPS), None)
    first = settings.groups[0]
    if classical is None:
        return (first,)
    if first in HYBRID_GROUPS and exchange.flavor.offers_hybrid_share:
        return (first, classical)
    return (classical,)


def _entries(shares: dict[Group, KeyShare]) -> tuple[KeyShareEntry, ...]:
    return tuple(KeyShareEntry(group, share.public) for group, share in shares.items())


class ExpectServerHello(State):
    """After the first ClientHello: ServerHello or HelloRetryRequest."""

    __slots__ = ("offer", "target")

    # A server of DTLS 1.2 may answer with HelloVerifyRequest; the state says what that means.
    expects = (HandshakeType.SERVER_HELLO, HandshakeType.HELLO_VERIFY_REQUEST)

    def __init__(self, exchange: Exchange, target: Target, offer: Offer) -> None:
        super().__init__(exchange, EPOCH_PLAIN)
        self.target = target
        self.offer = offer

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        if kind is HandshakeType.HELLO_VERIFY_REQUEST:
            if not self.exchange.flavor.has_legacy_cookie:
                raise self.unexpected(kind)
            raise older_version(self.exchange, "DTLS 1.2")
        hello = ServerHello.decode(body)
        spec = check_hello(self.exchange, self.offer.hello, hello)
        if hello.is_retry_request:
            return self._retry(hello, spec, message)
        transcript = Transcript(self.exchange.provider, spec)
        transcript.add(self.offer.message)
        return _agree(self.exchange, self.target, self.offer, hello, spec, transcript, message, retried=False)

    def _retry(self, request: ServerHello, spec: SuiteSpec, message: bytes) -> State:
        """Send the second ClientHello: another key share, a cookie, or both [9147-5.1-9]."""
        exchange, offer = self.exchange, self.offer
        cookie = request.extensions.get(ext.COOKIE)
        group = request.extensions.get(ext.KEY_SHARE_REQUEST)
        if cookie is None and group is None:
            # RFC 8446 section 4.1.4 [8446-NEG-4]
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "HelloRetryRequest changes nothing")
        shares = offer.shares
        if group is not None:
            if group not in exchange.settings.groups or group in shares:
                # RFC 8446 section 4.2.8 [8446-NEG-4]
                raise HandshakeError(
                    Alert.ILLEGAL_PARAMETER, f"HelloRetryRequest asks for {group.name} without need"
                )
            shares = {group: exchange.provider.key_share(group)}
        # RFC 8446 section 4.1.2 [9147-5.1-2, 9147-5.1-4]: all else stays as it was.
        block = Extensions(Where.CLIENT_HELLO)
        first = offer.hello.extensions
        block.add(ext.SUPPORTED_VERSIONS, first.require(ext.SUPPORTED_VERSIONS))
        if cookie is not None:
            block.add(ext.COOKIE, cookie)
        moved = (
            ext.SUPPORTED_VERSIONS,
            ext.KEY_SHARES,
            ext.EARLY_DATA,
            ext.PSK_KEY_EXCHANGE_MODES,
            ext.TICKET_REQUEST,
            ext.PRE_SHARED_KEYS,
        )
        block.copy_from(first, but=frozenset(key.code for key in moved))
        if ext.KEY_SHARES.code in first:
            block.add(ext.KEY_SHARES, _entries(shares))
        # RFC 8446 section 4.1.2: keys that do not go with the suite's hash are left out.
        psks = tuple(one for one in offer.psks if one.psk.hash_name == spec.hash_name)
        psk.offer(exchange, block, psks)
        transcript = Transcript.after_retry(
            exchange.provider, spec, message_hash(exchange.provider, spec, offer.message), message
        )
        again = replace(offer.hello, extensions=block)
        second = Offer(*psk.with_binders(exchange, again, psks, transcript), shares, psks)
        transcript.add(second.message)
        if not exchange.early.pending:
            exchange.send_compatibility_ccs()
        # RFC 8446 section 4.2.10 [8446-0RTT-3]
        early.refused(exchange)
        exchange.send(EPOCH_PLAIN, second.message)
        return ExpectSecondServerHello(exchange, self.target, second, spec, group, transcript)


class ExpectSecondServerHello(State):
    """After the second ClientHello: only ServerHello will do."""

    __slots__ = ("group", "offer", "spec", "target", "transcript")

    expects = (HandshakeType.SERVER_HELLO,)

    def __init__(
        self,
        exchange: Exchange,
        target: Target,
        offer: Offer,
        spec: SuiteSpec,
        group: Group | None,
        transcript: Transcript,
    ) -> None:
        super().__init__(exchange, EPOCH_PLAIN)
        self.target = target
        self.offer = offer
        self.spec = spec
        self.group = group
        self.transcript = transcript

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        hello = ServerHello.decode(body)
        if hello.is_retry_request:
            # RFC 8446 section 4.1.4, RFC 9147 section 5.1 [9147-5.1-12, 8446-NEG-3]
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a second HelloRetryRequest")
        spec = check_hello(self.exchange, self.offer.hello, hello)
        if spec is not self.spec:
            raise HandshakeError(
                Alert.ILLEGAL_PARAMETER, "ServerHello has another suite than HelloRetryRequest"
            )
        return _agree(
            self.exchange, self.target, self.offer, hello, spec, self.transcript, message, retried=True
        )


def _agree(
    exchange: Exchange,
    target: Target,
    offer: Offer,
    hello: ServerHello,
    spec: SuiteSpec,
    transcript: Transcript,
    message: bytes,
    *,
    retried: bool,
) -> State:
    """Finish the key exchange and install the handshake keys."""
    agreed = _agreed_psk(offer, hello, spec)
    group, secret = _exchanged(exchange, offer, hello, spec, agreed)
    transcript.add(message)
    deriver = deriver_of(exchange.provider, spec, exchange.flavor.label_prefix)
    before = EarlyStage.start(deriver, agreed.psk.secret if agreed is not None else b"")
    stage = before.handshake(secret, transcript.hash())
    exchange.log_secret("CLIENT_HANDSHAKE_TRAFFIC_SECRET", stage.client_secret)
    exchange.log_secret("SERVER_HANDSHAKE_TRAFFIC_SECRET", stage.server_secret)
    if not retried and not exchange.early.pending:
        exchange.send_compatibility_ccs()
    theirs = hello.extensions.get(ext.CONNECTION_ID)
    if theirs is not None:
        exchange.connection_ids = ConnectionIds(
            True, target.connection_id or b"", theirs, ext.RETURN_ROUTABILITY.code in hello.extensions
        )
    elif ext.RETURN_ROUTABILITY.code in hello.extensions:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "rrc is answered without connection_id")
    exchange.install(Direction.RECEIVE, EPOCH_HANDSHAKE, spec, stage.server_secret)
    if not early.holds_sending(exchange):
        exchange.install(Direction.SEND, EPOCH_HANDSHAKE, spec, stage.client_secret)
    facts = Negotiated(target, offer, spec, group, agreed, retried)
    return ExpectEncryptedExtensions(exchange, facts, stage, transcript)


def _exchanged(
    exchange: Exchange, offer: Offer, hello: ServerHello, spec: SuiteSpec, agreed: Candidate | None
) -> tuple[Group | None, bytes]:
    """The group and secret of the key exchange; zeros where a pre-shared key goes without."""
    modes = exchange.settings.psk_modes
    if ext.KEY_SHARE.code not in hello.extensions and agreed is not None and PskMode.PSK_KE in modes:
        # RFC 8446 section 7.1 [8446-KS-1]
        return None, bytes(spec.hash_bytes)
    # RFC 8446 section 4.2.9 [8446-PSK-1]: only with our leave is there none.
    entry = hello.extensions.require(ext.KEY_SHARE)
    if agreed is not None and PskMode.PSK_DHE_KE not in modes:
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER,
            "the server adds a key exchange to a pre-shared key: not offered",
        )
    share = offer.shares.get(entry.group)
    if share is None:
        # RFC 8446 section 4.2.8 [8446-NEG-3]
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, f"ServerHello answers {entry.group.name}, for which no share was sent"
        )
    return entry.group, share.finish(entry.share)


def _agreed_psk(offer: Offer, hello: ServerHello, spec: SuiteSpec) -> Candidate | None:
    index = hello.extensions.get(ext.SELECTED_PSK)
    if index is None:
        return None
    if index >= len(offer.psks) or offer.psks[index].psk.hash_name != spec.hash_name:
        # RFC 8446 section 4.2.11 [8446-PSK-3]
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "ServerHello selects a pre-shared key that cannot be")
    return offer.psks[index]


class ExpectEncryptedExtensions(State):
    """After ServerHello."""

    __slots__ = ("facts", "stage", "transcript")

    expects = (HandshakeType.ENCRYPTED_EXTENSIONS,)

    def __init__(
        self, exchange: Exchange, facts: Negotiated, stage: HandshakeStage, transcript: Transcript
    ) -> None:
        super().__init__(exchange, EPOCH_HANDSHAKE)
        self.facts = facts
        self.stage = stage
        self.transcript = transcript

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        block = EncryptedExtensions.decode(body).extensions
        block.refuse_unsolicited(self.facts.offer.hello.extensions)
        agreements.accept(self.exchange, block)
        self.transcript.add(message)
        exchange, facts = self.exchange, self.facts
        protocol = agreements.chosen_protocol(exchange, block)
        first = facts.psk is not None and facts.psk is facts.offer.psks[0]
        early.answered(exchange, block, facts.psk if first else None, self.stage, protocol)
        if facts.psk is not None:
            # RFC 8446 section 2.2: the key has shown who the server is, and no certificate follows.
            before = _AfterExtensions(exchange, facts, self.stage, self.transcript, protocol, _NO_TYPES)
            ticket = facts.psk.ticket
            return ExpectFinished(
                before, by_psk(facts.psk.psk, None if ticket is None else ticket.peer), None
            )
        types = certificatetypes.agreed(facts.offer.hello.extensions, block)
        if (
            exchange.settings.check_hostname
            and facts.target.server_name is None
            and types.server is CertificateType.X509
        ):
            raise HandshakeError(
                Alert.HANDSHAKE_FAILURE, "the server took no pre-shared key, and there is no name to check"
            )
        return ExpectCertificateOrRequest(exchange, facts, self.stage, self.transcript, protocol, types)


_NO_TYPES = AgreedTypes(CertificateType.X509, CertificateType.X509)


class _AfterExtensions(State):
    """What the states between EncryptedExtensions and Finished have in common."""

    __slots__ = ("alpn", "facts", "stage", "transcript", "types")

    def __init__(
        self,
        exchange: Exchange,
        facts: Negotiated,
        stage: HandshakeStage,
        transcript: Transcript,
        alpn: bytes | None,
        types: AgreedTypes,
    ) -> None:
        super().__init__(exchange, EPOCH_HANDSHAKE)
        self.facts = facts
        self.stage = stage
        self.transcript = transcript
        self.alpn = alpn
        self.types = types

    def _certificate(
        self, kind: HandshakeType, body: Reader, message: bytes, request: CertificateRequest | None
    ) -> State:
        settings, facts = self.exchange.settings, self.facts
        name = facts.target.server_name if settings.check_hostname else None
        asked = Asked(facts.offer.hello.extensions, self.types.server, Purpose.SERVER, name)
        certificate = acceptance.read(settings, kind, body, asked)
        if not certificate.entries:
            # RFC 8446 section 4.4.2.4 [8446-AUTH-1]
            raise HandshakeError(Alert.DECODE_ERROR, "the server's certificate list is empty")
        presented = acceptance.accept(settings, certificate, asked)
        # RFC 8879 section 4 [8879-1]: as it came, compressed or not.
        self.transcript.add(message)
        return ExpectCertificateVerify(self, presented, request)


class ExpectCertificateOrRequest(_AfterExtensions):
    """After EncryptedExtensions."""

    __slots__ = ()

    expects = (
        HandshakeType.CERTIFICATE_REQUEST,
        HandshakeType.CERTIFICATE,
        HandshakeType.COMPRESSED_CERTIFICATE,
    )

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        if kind is not HandshakeType.CERTIFICATE_REQUEST:
            return self._certificate(kind, body, message, None)
        request = CertificateRequest.decode(body)
        if request.context:
            # RFC 8446 section 4.3.2: empty during the handshake.
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "CertificateRequest has a context")
        request.extensions.require(ext.SIGNATURE_ALGORITHMS)
        self.transcript.add(message)
        return ExpectCertificate(self, request)


class ExpectCertificate(_AfterExtensions):
    """After CertificateRequest."""

    __slots__ = ("request",)

    expects = (HandshakeType.CERTIFICATE, HandshakeType.COMPRESSED_CERTIFICATE)

    def __init__(self, before: _AfterExtensions, request: CertificateRequest) -> None:
        super().__init__(
            before.exchange, before.facts, before.stage, before.transcript, before.alpn, before.types
        )
        self.request = request

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        return self._certificate(kind, body, message, self.request)


class ExpectCertificateVerify(_AfterExtensions):
    """After the server's Certificate."""

    __slots__ = ("presented", "request")

    expects = (HandshakeType.CERTIFICATE_VERIFY,)

    def __init__(
        self, before: _AfterExtensions, presented: Presented, request: CertificateRequest | None
    ) -> None:
        super().__init__(
            before.exchange, before.facts, before.stage, before.transcript, before.alpn, before.types
        )
        self.presented = presented
        self.request = request

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        peer = authenticate(self.exchange.settings, self.presented, body, Purpose.SERVER, self.transcript)
        self.transcript.add(message)
        return ExpectFinished(self, peer, self.request)


class ExpectFinished(_AfterExtensions):
    """After the server's CertificateVerify."""

    __slots__ = ("peer", "request")

    expects = (HandshakeType.FINISHED,)

    def __init__(
        self, before: _AfterExtensions, peer: PeerAuthenticated, request: CertificateRequest | None
    ) -> None:
        super().__init__(
            before.exchange, before.facts, before.stage, before.transcript, before.alpn, before.types
        )
        self.peer = peer
        self.request = request

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        exchange, facts, stage, transcript = self.exchange, self.facts, self.stage, self.transcript
        finished = verify_finished(stage.deriver, stage.server_secret, transcript, body)
        transcript.add(message)
        application = stage.application(transcript.hash())
        _log_application(exchange, application)
        exchange.install(Direction.RECEIVE, EPOCH_APPLICATION, facts.spec, application.server_secret)
        early.end(exchange, stage, transcript)
        if self.request is not None:
            self._answer(self.request)
        ours = finished_message(stage.deriver, stage.client_secret, transcript)
        transcript.add(ours)
        exchange.send(EPOCH_HANDSHAKE, ours)
        exchange.install(Direction.SEND, EPOCH_APPLICATION, facts.spec, application.client_secret)
        session = Session(
            version=exchange.flavor.name,
            suite=facts.spec,
            group=facts.group,
            alpn=self.alpn,
            server_name=facts.target.server_name,
            peer=self.peer.peer,
            peer_scheme=self.peer.scheme,
            psk_identity=self.peer.psk_identity,
            resumed=self.peer.resumed,
            retried=facts.retried,
            connection_ids=exchange.connection_ids,
            early_data=exchange.early.outcome,
            agreed=exchange.agreed.settled(),
        )
        resumption = application.resumption_secret(transcript.hash())
        exchange.settle(session)
        return Connected(exchange, session, application, resumption, self.peer, finished, is_client=True)

    def _answer(self, request: CertificateRequest) -> None:
        """Send our certificate, or an empty list, to a server that asked (RFC 8446 section 4.4.2)."""
        exchange, transcript = self.exchange, self.transcript
        wishes = Wishes.of(request.extensions, (self.types.client,))
        credential = presentation.choose(exchange.settings, None, wishes)
        certificate = presentation.certificate_message(exchange.settings, credential, request.context, wishes)
        transcript.add(certificate)
        exchange.send(EPOCH_HANDSHAKE, certificate)
        if credential is not None:
            proof = presentation.certificate_verify(credential, wishes, Purpose.CLIENT, transcript)
            transcript.add(proof)
            exchange.send(EPOCH_HANDSHAKE, proof)


def _log_application(exchange: Exchange, application: ApplicationStage) -> None:
    exchange.log_secret("CLIENT_TRAFFIC_SECRET_0", application.client_secret)
    exchange.log_secret("SERVER_TRAFFIC_SECRET_0", application.server_secret)
    exchange.log_secret("EXPORTER_SECRET", application.exporter_secret)
