"""The server's side, in protocol order (RFC 8446 sections 2 and 4).

                           <- ClientHello
    [HelloRetryRequest     ->
                           <- ClientHello again]
    ServerHello,
    EncryptedExtensions,
    [CertificateRequest],
    Certificate, CertificateVerify, Finished ->
                           <- [Certificate, [CertificateVerify]], Finished

Over datagrams the retry is usually made before any state exists (`dtls/gate.py`): it calls
`selection.select` and `selection.retry_request`, and the handshake begins with :class:`ExpectReturned`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sealwire.crypto.certificates import Credential, Purpose
from sealwire.crypto.groups import Group
from sealwire.crypto.psk import Psk, PskKind, PskMode
from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import acceptance, agreements, certificatetypes, early, presentation, psk, tickets
from sealwire.tls13 import extensions as ext
from sealwire.tls13.acceptance import Asked, Presented
from sealwire.tls13.authentication import (
    PeerAuthenticated,
    authenticate,
    by_psk,
    finished_message,
    no_certificate_asked,
    no_certificate_shown,
    verify_finished,
)
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    EPOCH_HANDSHAKE,
    EPOCH_PLAIN,
    VERIFY_NONE,
    VERIFY_REQUIRED,
    ConnectionIds,
    Direction,
    EarlyData,
    EarlyDataAnswered,
    Exchange,
    Session,
    Settings,
)
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.messages import (
    CertificateRequest,
    ClientHello,
    EncryptedExtensions,
    HandshakeType,
    ServerHello,
)
from sealwire.tls13.presentation import Wishes
from sealwire.tls13.psk import ChosenPsk
from sealwire.tls13.schedule import ApplicationStage, EarlyStage, HandshakeStage, deriver_of
from sealwire.tls13.selection import Selection, check_hello, retry_request, select
from sealwire.tls13.states import Connected, State
from sealwire.tls13.transcript import Transcript, message_hash
from sealwire.tls13.values import CertificateType, KeyShareEntry
from sealwire.wire import Reader


class ExpectClientHello(State):
    """Before anything."""

    __slots__ = ()

    expects = (HandshakeType.CLIENT_HELLO,)

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange, EPOCH_PLAIN)

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        exchange = self.exchange
        hello = _decoded(exchange, body)
        _choose_settings(exchange, hello)
        if ext.COOKIE.code in hello.extensions:
            # RFC 8446 section 4.2.2: a cookie answers a HelloRetryRequest, and we sent none.
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the first ClientHello has a cookie")
        selection = select(exchange.settings, hello)
        chosen = None
        if selection.usable:
            mode = selection.psk_mode
            chosen = psk.choose(exchange, hello, message, selection.spec.hash_name, mode, None)
        if chosen is None and not selection.share and selection.group is not None:
            return self._retry(hello, message, selection)
        transcript = Transcript(exchange.provider, selection.spec)
        transcript.add(message)
        return _answer(exchange, hello, selection, chosen, transcript, retried=False)

    def _retry(self, hello: ClientHello, message: bytes, selection: Selection) -> State:
        exchange, spec = self.exchange, selection.spec
        session_id = hello.legacy_session_id if exchange.flavor.compatibility_mode else b""
        request = retry_request(exchange.flavor, session_id, spec.suite, selection.group, b"")
        exchange.send(EPOCH_PLAIN, request)
        if session_id:
            exchange.send_compatibility_ccs()
        if ext.EARLY_DATA.code in hello.extensions:
            # RFC 8446 section 4.2.10 [8446-0RTT-3]
            exchange.early.outcome = EarlyData.REJECTED
            exchange.put(EarlyDataAnswered(False))
        transcript = Transcript.after_retry(
            exchange.provider, spec, message_hash(exchange.provider, spec, message), request
        )
        return ExpectSecondClientHello(exchange, hello, selection, transcript)


class ExpectSecondClientHello(State):
    """After a HelloRetryRequest of this very object."""

    __slots__ = ("first", "selection", "transcript")

    expects = (HandshakeType.CLIENT_HELLO,)

    # RFC 8446 section 4.1.2: what a second ClientHello may change.  No cookie: we gave none.
    _MAY_CHANGE = frozenset(
        (
            ext.KEY_SHARES.code,
            ext.EARLY_DATA.code,
            ext.PRE_SHARED_KEYS.code,
            ext.PADDING_CODE,
        )
    )

    def __init__(
        self, exchange: Exchange, first: ClientHello, selection: Selection, transcript: Transcript
    ) -> None:
        super().__init__(exchange, EPOCH_PLAIN)
        self.first = first
        self.selection = selection
        self.transcript = transcript

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        exchange, first = self.exchange, self.first
        hello = ClientHello.decode(body, exchange.flavor)
        same = (
            hello.random == first.random
            and hello.legacy_session_id == first.legacy_session_id
            and hello.suites == first.suites
            and hello.legacy_version == first.legacy_version
            and not hello.extensions.differs_from(first.extensions, but=self._MAY_CHANGE)
            # RFC 8446 section 4.1.2: keys may be left out or bound anew, not added.
            and (
                ext.PRE_SHARED_KEYS.code in first.extensions
                or ext.PRE_SHARED_KEYS.code not in hello.extensions
            )
        )
        if not same:
            # RFC 8446 section 4.1.2 [8446-NEG-5, 9147-5.1-4]
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the second ClientHello changes what it may not")
        check_hello(exchange.flavor, hello)
        return _returned(exchange, hello, message, self.selection.spec, self.selection.group, self.transcript)


class ExpectReturned(State):
    """A second ClientHello whose first one, and our answer, are known from its cookie alone.

    The cookie binds the hash of the first hello; what the second may not change is bound by the
    client's own Finished over both.
    """

    __slots__ = ("group", "spec", "transcript")

    expects = (HandshakeType.CLIENT_HELLO,)

    def __init__(
        self, exchange: Exchange, spec: SuiteSpec, group: Group | None, transcript: Transcript
    ) -> None:
        super().__init__(exchange, EPOCH_PLAIN)
        self.spec = spec
        self.group = group
        self.transcript = transcript

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        hello = _decoded(self.exchange, body)
        _choose_settings(self.exchange, hello)
        return _returned(self.exchange, hello, message, self.spec, self.group, self.transcript)


def _decoded(exchange: Exchange, body: Reader) -> ClientHello:
    """The ClientHello in `body`, checked; a transport that looked at it first has done both already."""
    hello, exchange.hello = exchange.hello, None
    if hello is None:
        hello = ClientHello.decode(body, exchange.flavor)
        check_hello(exchange.flavor, hello)
    return hello


def _choose_settings(exchange: Exchange, hello: ClientHello) -> None:
    """Go on with the settings for the name the client asks for: keys, tickets and certificates are theirs."""
    exchange.settings = exchange.settings.for_server_name(hello.extensions.get(ext.SERVER_NAME))


def _returned(
    exchange: Exchange,
    hello: ClientHello,
    message: bytes,
    spec: SuiteSpec,
    group: Group | None,
    transcript: Transcript,
) -> State:
    """Go on with a second ClientHello; `group` is what our HelloRetryRequest asked for, if it did."""
    if spec.suite not in hello.suites:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the second ClientHello lacks the selected suite")
    if ext.EARLY_DATA.code in hello.extensions:
        # RFC 8446 section 4.2.10: not after a retry.
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the second ClientHello announces early data")
    if group is None:
        selection = select(exchange.settings, hello)
        if not selection.usable:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the second ClientHello has no usable key share")
        selection = replace(selection, spec=spec)
    else:
        shares = hello.extensions.require(ext.KEY_SHARES)
        # RFC 8446 section 4.2.8 [8446-NEG-5]: exactly the one that was asked for.
        if len(shares) != 1 or shares[0].group != group:
            raise HandshakeError(
                Alert.ILLEGAL_PARAMETER,
                f"the second ClientHello does not hold the share for {group.name} alone",
            )
        mode = psk.agreed_mode(exchange.settings, hello, can_exchange=True)
        selection = Selection(spec, group, shares[0].share, mode)
    chosen = psk.choose(exchange, hello, message, spec.hash_name, selection.psk_mode, transcript)
    transcript.add(message)
    return _answer(exchange, hello, selection, chosen, transcript, retried=True)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the two hellos and EncryptedExtensions decided."""

    spec: SuiteSpec
    #: None with a pre-shared key alone (psk_ke).
    group: Group | None
    alpn: bytes | None
    server_name: str | None
    psk: Psk | None
    #: Tickets the client gets.
    tickets: int
    retried: bool
    #: See :attr:`Session.ticket_age_skew`.
    ticket_age_skew: float | None


def _answer(
    exchange: Exchange,
    hello: ClientHello,
    selection: Selection,
    chosen: ChosenPsk | None,
    transcript: Transcript,
    *,
    retried: bool,
) -> State:
    """Send everything from ServerHello to Finished."""
    flavor, spec = exchange.flavor, selection.spec
    exchange.client_random = hello.random
    server_name = hello.extensions.get(ext.SERVER_NAME)
    settings = exchange.settings
    wishes = Wishes.of(hello.extensions, certificatetypes.server_types(hello.extensions))
    credential = None
    if chosen is None:
        if not selection.share:
            raise _no_exchange(hello)
        credential = _credential(settings, hello, server_name, wishes)
    alpn = _choose_protocol(settings, hello)
    agreed = chosen.psk if chosen is not None else None
    resumed = agreed is not None and agreed.kind is PskKind.RESUMPTION
    promised = tickets.promised(settings, hello, resumed=resumed, by_key=agreed is not None and not resumed)
    group = selection.group
    if chosen is not None and chosen.mode is PskMode.PSK_KE:
        group = None
    skew = chosen.due - settings.clock() if chosen is not None and resumed else None
    facts = Negotiated(spec, group, alpn, server_name, agreed, promised, retried, skew)
    early.judge(exchange, hello, chosen, spec, alpn, retried=retried)
    hello_hash = transcript.hash()

    block = Extensions(Where.SERVER_HELLO)
    block.add(ext.SELECTED_VERSION, flavor.version)
    if group is not None:
        share, secret = exchange.provider.respond(group, selection.share)
        block.add(ext.KEY_SHARE, KeyShareEntry(group, share))
    else:
        # RFC 8446 section 7.1 [8446-KS-1]: zeros stand in for the exchange there was not.
        secret = bytes(spec.hash_bytes)
    _agree_connection_ids(exchange, hello, block)
    if chosen is not None:
        block.add(ext.SELECTED_PSK, chosen.index)
    # RFC 9147 section 5 [9147-5-1]: DTLS never echoes the session id.
    session_id = hello.legacy_session_id if flavor.compatibility_mode else b""
    server_hello = ServerHello(
        flavor.legacy_version, exchange.provider.random(32), session_id, spec.suite, 0, block
    ).encode()
    transcript.add(server_hello)
    exchange.send(EPOCH_PLAIN, server_hello)
    if not retried and session_id:
        exchange.send_compatibility_ccs()

    deriver = deriver_of(exchange.provider, spec, flavor.label_prefix)
    before = EarlyStage.start(deriver, agreed.secret if agreed is not None else b"")
    stage = before.handshake(secret, transcript.hash())
    exchange.log_secret("CLIENT_HANDSHAKE_TRAFFIC_SECRET", stage.client_secret)
    exchange.log_secret("SERVER_HANDSHAKE_TRAFFIC_SECRET", stage.server_secret)
    exchange.install(Direction.SEND, EPOCH_HANDSHAKE, spec, stage.server_secret)
    early.install(exchange, before, hello_hash, retried=retried)
    early_accepted = exchange.early.outcome is EarlyData.ACCEPTED
    ends_early = early_accepted and flavor.has_end_of_early_data
    if not ends_early:
        exchange.install(Direction.RECEIVE, EPOCH_HANDSHAKE, spec, stage.client_secret)

    encrypted = _encrypted_extensions(hello, facts, early_accepted=early_accepted)
    agreements.answer(exchange, hello.extensions, encrypted)
    flight, asked = _protected_flight(settings, hello.extensions, credential, wishes, encrypted, transcript)
    flight.append(finished_message(deriver, stage.server_secret, transcript))
    transcript.add(flight[-1])
    for message in flight:
        exchange.send(EPOCH_HANDSHAKE, message)
    application = stage.application(transcript.hash())
    exchange.log_secret("CLIENT_TRAFFIC_SECRET_0", application.client_secret)
    exchange.log_secret("SERVER_TRAFFIC_SECRET_0", application.server_secret)
    exchange.log_secret("EXPORTER_SECRET", application.exporter_secret)
    exchange.install(Direction.SEND, EPOCH_APPLICATION, spec, application.server_secret)
    progress = Progress(facts, stage, application, transcript)
    if chosen is not None:
        following = ExpectFinished(exchange, progress, by_psk(chosen.psk, chosen.peer))
        return early.ExpectEndOfEarlyData(exchange, stage, transcript, following) if ends_early else following
    if asked is not None:
        return ExpectCertificate(exchange, progress, asked)
    return ExpectFinished(exchange, progress, no_certificate_asked())


def _no_exchange(hello: ClientHello) -> HandshakeError:
    """The error for a client that offers nothing but keys, none of which is known here."""
    return HandshakeError(Alert.UNKNOWN_PSK_IDENTITY, "the client's pre-shared keys are not known here")


def _credential(
    settings: Settings, hello: ClientHello, server_name: str | None, wishes: Wishes
) -> Credential:
    credential = presentation.choose(settings, server_name, wishes)
    if credential is not None:
        return credential
    if ext.PRE_SHARED_KEYS.code in hello.extensions:
        if settings.credential_for(server_name, settings.signature_schemes) is not None:
            # RFC 8446 section 4.2.3 [8446-NEG-7]: a hello with keys may lack it, until no key will do.
            hello.extensions.require(ext.SIGNATURE_ALGORITHMS)
        # RFC 8446 section 6.2: nothing but a pre-shared key would do.
        raise _no_exchange(hello)
    if settings.credentials and not presentation.has_one_of(settings, wishes.types):
        # RFC 7250 section 4.2 [7250-1]: no type in common.
        raise HandshakeError(
            Alert.UNSUPPORTED_CERTIFICATE, "the client takes no certificate of a type that is there to show"
        )
    if settings.psk_server is not None:
        raise HandshakeError(
            Alert.HANDSHAKE_FAILURE, "the client offers no pre-shared key, and there is no certificate for it"
        )
    raise HandshakeError(
        Alert.HANDSHAKE_FAILURE, "the client accepts no signature scheme our certificates' keys can make"
    )


def _agree_connection_ids(exchange: Exchange, hello: ClientHello, block: Extensions) -> None:
    """Answer connection_id and rrc, if the client offers and we want them (RFC 9146, RFC 9853)."""
    theirs = hello.extensions.get(ext.CONNECTION_ID)
    ours = exchange.own_connection_id
    # Two empty ids are no ids.
    if theirs is None or ours is None or not (theirs or ours):
        return
    routability = ext.RETURN_ROUTABILITY.code in hello.extensions
    block.add(ext.CONNECTION_ID, ours)
    if routability:
        block.add(ext.RETURN_ROUTABILITY, True)
    exchange.connection_ids = ConnectionIds(True, ours, theirs, routability)


def _encrypted_extensions(hello: ClientHello, facts: Negotiated, *, early_accepted: bool) -> Extensions:
    block = Extensions(Where.ENCRYPTED_EXTENSIONS)
    resumed = facts.psk is not None and facts.psk.kind is PskKind.RESUMPTION
    if facts.server_name is not None and not resumed:
        # RFC 6066 section 3 [6066-1]: the name chose settings and certificate, so it is acknowledged; in a
        # resumed session it chose nothing.
        block.add(ext.SERVER_NAME_ACCEPTED, True)
    if facts.alpn is not None:
        block.add(ext.ALPN, (facts.alpn,))
    if early_accepted:
        block.add(ext.EARLY_DATA, True)
    if ext.TICKET_REQUEST.code in hello.extensions:
        # RFC 9149 section 3
        block.add(ext.TICKETS_EXPECTED, facts.tickets)
    return block


def _protected_flight(
    settings: Settings,
    hello: Extensions,
    credential: Credential | None,
    wishes: Wishes,
    encrypted: Extensions,
    transcript: Transcript,
) -> tuple[list[bytes], Asked | None]:
    """EncryptedExtensions to CertificateVerify, added to the transcript as they are made.

    Also what the client was asked to show; None for nothing.
    """
    flight: list[bytes] = []

    def append(message: bytes) -> None:
        transcript.add(message)
        flight.append(message)

    if credential is None:
        # RFC 8446 section 4.3.2 [8446-AUTH-4]: with a pre-shared key neither side shows certificates.
        append(EncryptedExtensions(encrypted).encode())
        return flight, None
    if ext.SERVER_CERTIFICATE_TYPES.code in hello:
        encrypted.add(ext.SERVER_CERTIFICATE_TYPE, presentation.type_of(credential))
    client_type = certificatetypes.client_type(settings, hello)
    if client_type is not None:
        encrypted.add(ext.CLIENT_CERTIFICATE_TYPE, client_type)
    append(EncryptedExtensions(encrypted).encode())
    asked = None
    if settings.verify_mode != VERIFY_NONE:
        request = acceptance.request(settings)
        append(CertificateRequest(b"", request).encode())
        asked = Asked(request, client_type or CertificateType.X509, Purpose.CLIENT, None)
    append(presentation.certificate_message(settings, credential, b"", wishes))
    append(presentation.certificate_verify(credential, wishes, Purpose.SERVER, transcript))
    return flight, asked


def _choose_protocol(settings: Settings, hello: ClientHello) -> bytes | None:
    offered = hello.extensions.get(ext.ALPN)
    if offered is None or not settings.alpn:
        return None
    for protocol in settings.alpn:
        if protocol in offered:
            return protocol
    # RFC 7301 section 3.2 [8446-NEG-9]
    raise HandshakeError(Alert.NO_APPLICATION_PROTOCOL, "no application protocol is supported by both sides")


@dataclass(frozen=True, slots=True)
class Progress:
    """What the states after our Finished have in common."""

    facts: Negotiated
    stage: HandshakeStage
    application: ApplicationStage
    transcript: Transcript


class ExpectCertificate(State):
    """We asked for a certificate."""

    __slots__ = ("asked", "progress")

    expects = (HandshakeType.CERTIFICATE, HandshakeType.COMPRESSED_CERTIFICATE)

    def __init__(self, exchange: Exchange, progress: Progress, asked: Asked) -> None:
        super().__init__(exchange, EPOCH_HANDSHAKE)
        self.progress = progress
        self.asked = asked

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        settings = self.exchange.settings
        certificate = acceptance.read(settings, kind, body, self.asked)
        if not certificate.entries:
            peer = no_certificate_shown(settings, optional=settings.verify_mode != VERIFY_REQUIRED)
            self.progress.transcript.add(message)
            return ExpectFinished(self.exchange, self.progress, peer)
        presented = acceptance.accept(settings, certificate, self.asked)
        self.progress.transcript.add(message)
        return ExpectCertificateVerify(self.exchange, self.progress, presented)


class ExpectCertificateVerify(State):
    """The client showed a certificate; RFC 8446 section 4.4.3 [8446-AUTH-3]: proof must follow."""

    __slots__ = ("presented", "progress")

    expects = (HandshakeType.CERTIFICATE_VERIFY,)

    def __init__(self, exchange: Exchange, progress: Progress, presented: Presented) -> None:
        super().__init__(exchange, EPOCH_HANDSHAKE)
        self.progress = progress
        self.presented = presented

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        transcript = self.progress.transcript
        peer = authenticate(self.exchange.settings, self.presented, body, Purpose.CLIENT, transcript)
        transcript.add(message)
        return ExpectFinished(self.exchange, self.progress, peer)


class ExpectFinished(State):
    """Only the client's Finished is missing."""

    __slots__ = ("peer", "progress")

    expects = (HandshakeType.FINISHED,)

    def __init__(self, exchange: Exchange, progress: Progress, peer: PeerAuthenticated) -> None:
        super().__init__(exchange, EPOCH_HANDSHAKE)
        self.progress = progress
        self.peer = peer

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        exchange, facts = self.exchange, self.progress.facts
        stage, transcript = self.progress.stage, self.progress.transcript
        finished = verify_finished(stage.deriver, stage.client_secret, transcript, body)
        transcript.add(message)
        application = self.progress.application
        # RFC 9147 section 5.8.1 [9147-5.8.1-5]: not a byte of epoch 3 opens before Finished was verified.
        exchange.install(Direction.RECEIVE, EPOCH_APPLICATION, facts.spec, application.client_secret)
        session = Session(
            version=exchange.flavor.name,
            suite=facts.spec,
            group=facts.group,
            alpn=facts.alpn,
            server_name=facts.server_name,
            peer=self.peer.peer,
            peer_scheme=self.peer.scheme,
            psk_identity=self.peer.psk_identity,
            resumed=self.peer.resumed,
            retried=facts.retried,
            connection_ids=exchange.connection_ids,
            early_data=exchange.early.outcome,
            agreed=exchange.agreed.settled(),
            ticket_age_skew=facts.ticket_age_skew,
        )
        resumption = application.resumption_secret(transcript.hash())
        connected = Connected(
            exchange, session, application, resumption, self.peer, finished, is_client=False
        )
        for ticket in tickets.issue(exchange, session, application.deriver, resumption, facts.tickets):
            exchange.send(EPOCH_APPLICATION, ticket)
        exchange.settle(session)
        return connected
