"""Early data (0-RTT): when a client offers it, and when a server takes it (RFC 8446 sections 2.3, 4.2.10, 8).

A client that comes back may send data right behind its ClientHello, under keys of the ticket alone.  So
nothing fresh of the server is in them: whoever records the flight can send it again, and only the server's
memory (`crypto/strikes.py`) tells the second time.  What early data is bound to is checked here: the first
key offered is a ticket, suite and application protocol are those the ticket was issued with (the server
name is checked with the ticket), the hello comes when its ticket's age says, and this very process issued
the ticket and has not accepted it before.  Whatever is missing rejects early data, never the handshake.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealwire.crypto.suites import SUITES, SuiteSpec
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13 import returning
from sealwire.tls13.contract import (
    EPOCH_EARLY,
    EPOCH_HANDSHAKE,
    Direction,
    EarlyData,
    EarlyDataAnswered,
    Exchange,
)
from sealwire.tls13.extensions import Extensions
from sealwire.tls13.messages import ClientHello, HandshakeType, frame
from sealwire.tls13.psk import Candidate, ChosenPsk
from sealwire.tls13.schedule import EarlyStage, HandshakeStage, deriver_of
from sealwire.tls13.states import State
from sealwire.tls13.transcript import Transcript, message_hash
from sealwire.wire import Reader

# --- client ----------------------------------------------------------------------------------


def offered_by(exchange: Exchange, psks: Sequence[Candidate]) -> bool:
    """Whether a ClientHello with `psks` announces early data."""
    ticket = psks[0].ticket if psks else None
    if not exchange.early.wanted or ticket is None or not ticket.max_early_data:
        return False
    # RFC 8446 section 4.2.10 [8446-0RTT-1]
    return ticket.alpn is None or ticket.alpn in exchange.settings.alpn


def begin(exchange: Exchange, first: Candidate, hello: bytes) -> None:
    """The hello that announces early data is sent: have keys for it."""
    ticket = first.ticket
    assert ticket is not None
    spec = SUITES[ticket.suite]
    deriver = deriver_of(exchange.provider, spec, exchange.flavor.label_prefix)
    stage = EarlyStage.start(deriver, first.psk.secret)
    secret = stage.client_early_secret(message_hash(exchange.provider, spec, hello))
    exchange.early.pending = True
    exchange.early.limit = ticket.max_early_data
    exchange.early.alpn = ticket.alpn
    exchange.log_secret("CLIENT_EARLY_TRAFFIC_SECRET", secret)
    # RFC 8446 appendix D.4: right behind the first ClientHello then.
    exchange.send_compatibility_ccs()
    exchange.install(Direction.SEND, EPOCH_EARLY, spec, secret)


def refused(exchange: Exchange) -> None:
    """The server does not take the early data that was offered, if any was."""
    early = exchange.early
    if early.pending:
        early.pending = False
        early.limit = 0
        early.outcome = EarlyData.REJECTED
        exchange.put(EarlyDataAnswered(False))


def holds_sending(exchange: Exchange) -> bool:
    """Whether sending keys are those of early data until a message ends it."""
    taken = exchange.early.pending or exchange.early.outcome is EarlyData.ACCEPTED
    return taken and exchange.flavor.has_end_of_early_data


def answered(
    exchange: Exchange, block: Extensions, used: Candidate | None, stage: HandshakeStage, alpn: bytes | None
) -> None:
    """EncryptedExtensions came; `used` is what the server chose, if it is the first key offered.

    Raises:
        HandshakeError: illegal_parameter, early data is accepted for what it was not offered for.
    """
    spec, held = stage.deriver.spec, holds_sending(exchange)
    if ext.EARLY_DATA.code not in block:
        refused(exchange)
        if held:
            exchange.install(Direction.SEND, EPOCH_HANDSHAKE, spec, stage.client_secret)
        return
    ticket = None if used is None else used.ticket
    if ticket is None or ticket.suite != spec.suite or ticket.alpn != alpn:
        # RFC 8446 section 4.2.10 [8446-0RTT-1]
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "early data is accepted, but not its key or protocol")
    early = exchange.early
    early.pending = False
    early.outcome = EarlyData.ACCEPTED
    exchange.put(EarlyDataAnswered(True))


def end(exchange: Exchange, stage: HandshakeStage, transcript: Transcript) -> None:
    """The server's Finished came: say that there is no more early data, where that is said."""
    if holds_sending(exchange):
        # RFC 8446 section 4.5 [8446-0RTT-5]
        message = frame(HandshakeType.END_OF_EARLY_DATA, b"")
        transcript.add(message)
        exchange.send(EPOCH_EARLY, message)
        exchange.install(Direction.SEND, EPOCH_HANDSHAKE, stage.deriver.spec, stage.client_secret)


# --- server ----------------------------------------------------------------------------------


def judge(
    exchange: Exchange,
    hello: ClientHello,
    chosen: ChosenPsk | None,
    spec: SuiteSpec,
    alpn: bytes | None,
    *,
    retried: bool,
) -> None:
    """Decide whether the early data a hello announces is taken; its binder was checked."""
    if ext.EARLY_DATA.code not in hello.extensions:
        return
    early, settings = exchange.early, exchange.settings
    early.outcome = EarlyData.REJECTED
    # [8446-0RTT-1]: the first key offered, and no retry in between.
    if retried or chosen is None or chosen.index != 0 or chosen.grant is None or not early.wanted:
        return
    grant = chosen.grant
    if not settings.max_early_data_size or grant.suite != spec.suite or grant.alpn != (alpn or b""):
        return
    # A ticket that stands for a cookie has counted.  [8446-0RTT-2], and last, because it is remembered.
    shown = early.shown
    if (shown is not None and shown.identity == grant.psk.identity) or returning.counts(
        settings, grant, chosen.due, settings.clock()
    ):
        early.outcome = EarlyData.ACCEPTED
        early.limit = grant.max_size
        early.alpn = alpn


def install(exchange: Exchange, stage: EarlyStage, hello_hash: bytes, *, retried: bool) -> None:
    """Have keys for accepted early data, or say that what was announced is refused."""
    outcome = exchange.early.outcome
    if outcome is EarlyData.NOT_OFFERED or retried:
        # A retry has said so already.
        return
    if outcome is EarlyData.ACCEPTED:
        secret = stage.client_early_secret(hello_hash)
        exchange.log_secret("CLIENT_EARLY_TRAFFIC_SECRET", secret)
        exchange.install(Direction.RECEIVE, EPOCH_EARLY, stage.deriver.spec, secret)
    exchange.put(EarlyDataAnswered(outcome is EarlyData.ACCEPTED))


class ExpectEndOfEarlyData(State):
    """Early data comes, until a message ends it (RFC 8446 section 4.5).  Streams only."""

    __slots__ = ("following", "stage", "transcript")

    expects = (HandshakeType.END_OF_EARLY_DATA,)

    def __init__(
        self, exchange: Exchange, stage: HandshakeStage, transcript: Transcript, following: State
    ) -> None:
        super().__init__(exchange, EPOCH_EARLY)
        self.stage = stage
        self.transcript = transcript
        self.following = following

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        body.finish()
        self.transcript.add(message)
        stage = self.stage
        self.exchange.install(Direction.RECEIVE, EPOCH_HANDSHAKE, stage.deriver.spec, stage.client_secret)
        return self.following
