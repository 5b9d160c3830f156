"""What stands before any connection: hellos of peers whose address nobody has proved.

Nothing per peer exists here (DESIGN journey c): a ClientHello without cookie is answered by a
stateless HelloRetryRequest, one with a good cookie becomes an :class:`Attempt`, everything else is
silence or, for a well-formed hello we cannot serve, one alert smaller than the hello.  Whoever
answers gets at most three times the bytes it sent (RFC 9147 section 5.1 [9147-5.1-8]), and how many
are answered a second is bounded (`strangers.py`).

A flood is not judged here but in C, a batch in a call (`_gate.pyx`), with the same tables and to the
same answers: :meth:`Gate.sift` comes first where it is built, and leaves what needs Python to
:meth:`Gate.receive`: good cookies, tickets, the application's callbacks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sealwire.context import Config
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.crypto.ratchet import KeyRatchet
from sealwire.crypto.suites import SUITES
from sealwire.dtls.cookie import Address, CookieFacts, CookieJar, address_text
from sealwire.dtls.header import (
    ContentType,
    Fragment,
    decode_fragments,
    decode_plaintext,
    encode_plaintext,
    fragment_header,
)
from sealwire.dtls.place import place_of
from sealwire.dtls.slab import HelloSlab, WholeHello
from sealwire.dtls.strangers import Strangers
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.limits import Limits
from sealwire.record.protect import uses_compiled
from sealwire.telemetry import EndpointCounters
from sealwire.tls13 import extensions as ext
from sealwire.tls13 import returning
from sealwire.tls13.flavor import DTLS
from sealwire.tls13.messages import HEADER_BYTES, ClientHello, HandshakeType, frame
from sealwire.tls13.selection import check_hello, retry_request, select
from sealwire.tls13.tickets import Opened
from sealwire.tls13.transcript import message_hash
from sealwire.wire import Buffer, Reader

if TYPE_CHECKING:
    from sealwire.crypto.providers import CryptoProvider
    from sealwire.dtls._gate import Sieve

_FATAL: Final = 2
AMPLIFICATION: Final = 3
# A stranger's datagram costs no more than so many pieces; small ones of several records may share one.
FRAGMENTS_PER_DATAGRAM: Final = 8
# Slots of proved addresses: what a flood of unproved hellos cannot reach.
_PROVED_SLOTS_PART: Final = 8


class Attempt(NamedTuple):
    """A client whose address is proved and that wants a connection.

    For admission callbacks `address` and `server_name` tell who asks for what.
    """

    address: Address
    server_name: str | None
    #: The whole ClientHello, TLS form, and its decoded form.
    message: bytes
    hello: ClientHello
    #: What the cookie said; None where no cookie was asked for.
    facts: CookieFacts | None
    #: The HelloRetryRequest that was sent, TLS form; b"" without one.
    retry_request: bytes
    message_seq: int
    #: Record number to number our plaintext records from.
    plain_sequence: int
    received_bytes: int
    #: The ticket that showed the address, which counted; None where nothing but a cookie did.
    ticket: Opened | None = None
    #: What stood behind the hello in its datagram: early data, perhaps.
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this datagram back and forget."""

    datagram: bytes


@dataclass(frozen=True, slots=True)
class OlderVersion:
    """A hello that offers no DTLS 1.3; another stack may want it."""

    reply: Reply | Discard


Answer = Attempt | Reply | OlderVersion | Discard


class Gate:
    """Judges ClientHellos of unknown peers.  Keeps cookie keys and tables of fixed size, nothing else.

    Attributes:
        jar, slab, proved, strangers: cookies; pieces of hellos, apart for proved addresses; who is answered.
        counters: the endpoint's.
        sieve: the compiled part, None where it is not built.
        require_cookie: whether every first hello without a ticket is sent a cookie.
    """

    __slots__ = ("counters", "jar", "proved", "require_cookie", "sieve", "slab", "strangers")

    def __init__(
        self,
        config: Config,
        limits: Limits,
        counters: EndpointCounters,
        *,
        require_cookie: bool,
        cookies: KeyRatchet | None = None,
    ) -> None:
        provider = config.provider
        self.counters = counters
        self.require_cookie = require_cookie
        self.jar = CookieJar(provider, limits.cookie_seconds, shared=cookies)
        self.slab = HelloSlab(
            provider, limits.hello_slots, limits.hello_slot_bytes, limits.hello_slot_seconds
        )
        self.proved = HelloSlab(
            provider,
            max(limits.hello_slots // _PROVED_SLOTS_PART, 1),
            limits.hello_slot_bytes,
            limits.hello_slot_seconds,
        )
        self.strangers = Strangers(provider, limits)
        self.sieve = sieve_for(self, provider)

    def force_load(self, on: bool) -> None:
        """Under load everybody needs a cookie: neither a ticket nor the settings do without."""
        self.strangers.force_load(on)

    @property
    def memory_bytes(self) -> int:
        """What the gate's fixed tables occupy."""
        return self.slab.memory_bytes + self.proved.memory_bytes + self.strangers.memory_bytes

    @property
    def compiled(self) -> bool:
        """Whether :meth:`sift` does anything."""
        return self.sieve is not None

    def sift(
        self,
        batch: Sequence[tuple[Buffer, Address]],
        index: int,
        config: Config,
        now: float,
        replies: list[tuple[bytes, Address]],
        *,
        known: Collection[bytes] = (),
        others: bool = False,
    ) -> int:
        """Judge the hellos of `batch` from `index` on in C, as far as that goes.

        Args:
            replies: what is to be sent is appended.
            known: randoms of first hellos that are connections already.
            others: whether hellos of older versions belong to somebody else.

        Returns:
            Index of the first datagram that is no hello or is left to :meth:`receive`, which has to be given
            that one next; `index` itself where nothing is compiled.
        """
        if self.sieve is None:
            return index
        return self.sieve.sift(batch, index, config, now, replies, known, others)

    def receive(
        self,
        datagram: Buffer,
        address: Address,
        config: Config,
        now: float,
        known: tuple[bytes, ...] = (),
    ) -> Answer:
        """Judge one datagram that may begin with (a fragment of) a ClientHello.

        `known` are the randoms of first hellos that are connections of this address already: one that
        comes again needs no proof, as nothing new is made for it.
        """
        answer: Answer
        if self.sieve is not None and (left := self.sieve.take_left()) is not None:
            body, received_bytes, record_number, message_seq, end, admitted = left
            whole = WholeHello(body, received_bytes, record_number)
            answer = self._judge(whole, message_seq, address, config, now, known, admitted=admitted)
            return self._of(answer, datagram, end)
        self.counters.unproved_bytes_received += len(datagram)
        answer = Discard.UNKNOWN_PEER
        offset, fragments_left, size = 0, FRAGMENTS_PER_DATAGRAM, len(datagram)
        while offset < len(datagram):
            record = decode_plaintext(datagram, offset)
            if isinstance(record, Discard):
                return answer if offset else record
            if record.content_type != ContentType.HANDSHAKE:
                return answer
            offset = record.end
            try:
                fragments = decode_fragments(record.content)
            except ProtocolError:
                return Discard.BAD_FRAGMENT
            for fragment in fragments[:fragments_left]:
                answer = self._receive_fragment(fragment, address, config, record.sequence, size, now, known)
                if answer is not Discard.INCOMPLETE_HELLO:
                    return self._of(answer, datagram, offset)
                # The bytes of a datagram count once.
                size = 0
                fragments_left -= 1
        return answer

    def _of(self, answer: Answer, datagram: Buffer, end: int) -> Answer:
        """An answer with what stands behind the hello, which ended at `end`."""
        reply = answer.reply if isinstance(answer, OlderVersion) else answer
        if isinstance(reply, Reply):
            self.counters.unproved_bytes_sent += len(reply.datagram)
        elif isinstance(answer, Attempt) and end < len(datagram):
            return answer._replace(rest=bytes(datagram[end:]))
        return answer

    def _receive_fragment(
        self,
        fragment: Fragment,
        address: Address,
        config: Config,
        record: int,
        size: int,
        now: float,
        known: tuple[bytes, ...],
    ) -> Answer:
        if fragment.kind is not HandshakeType.CLIENT_HELLO or fragment.message_seq > 1:
            return Discard.UNKNOWN_PEER
        if fragment.whole:
            hello = WholeHello(fragment.data, size, record)
        else:
            collected = self._collect(fragment, address, record, size, now)
            if isinstance(collected, Discard):
                return collected
            hello = collected
        return self._judge(hello, fragment.message_seq, address, config, now, known)

    def _collect(
        self, fragment: Fragment, address: Address, record: int, size: int, now: float
    ) -> WholeHello | Discard:
        slab = self.slab
        cookie = _visible_cookie(fragment) if fragment.message_seq == 1 else None
        if cookie is not None and self.jar.check(cookie, address, now) is not None:
            # This client is who it says it is, so its pieces move out of the reach of a flood.
            slab = self.proved
            for offset, data in self.slab.take(fragment, address):
                piece = Fragment(fragment.kind, fragment.length, fragment.message_seq, offset, data)
                slab.put(piece, address, record, len(data), now)
        elif self.proved.holds(fragment, address):
            slab = self.proved
        kept = slab.put(fragment, address, record, size, now)
        if isinstance(kept, WholeHello):
            return kept
        return Discard.INCOMPLETE_HELLO if kept else Discard.OVER_BUDGET

    def _judge(
        self,
        whole: WholeHello,
        message_seq: int,
        address: Address,
        config: Config,
        now: float,
        known: tuple[bytes, ...],
        *,
        admitted: bool = False,
    ) -> Answer:
        message = frame(HandshakeType.CLIENT_HELLO, whole.body)
        try:
            hello = ClientHello.decode(Reader(message, "ClientHello", start=HEADER_BYTES), DTLS)
        except ProtocolError:
            # Anybody can send this from any address: silence.
            return Discard.MALFORMED_HELLO
        versions = hello.extensions.get(ext.SUPPORTED_VERSIONS) or ()
        if DTLS.version not in versions:
            return OlderVersion(
                self._alert(Alert.PROTOCOL_VERSION, whole, now, otherwise=Discard.OTHER_VERSION)
            )
        try:
            check_hello(DTLS, hello)
            cookie = hello.extensions.get(ext.COOKIE)
            if cookie is None:
                if message_seq != 0:
                    return Discard.MALFORMED_HELLO
                if hello.random in known:
                    return self._attempt(whole, hello, message, address, None, b"", 0)
                # Before anything that costs: who is not answered is not judged either.
                if not admitted and not self.strangers.admits(address_text(address), place_of(address), now):
                    return Discard.UNDER_LOAD
                loaded = self.strangers.loaded(now)
                # Suite, group and tickets are those of the settings the name leads to, or the handshake would
                # go on with what they forbid.  The application's callback is asked before the address is
                # proved; it is asked once more for the second hello, as nothing is kept.
                chosen = config.for_server_name(hello.extensions.get(ext.SERVER_NAME))
                # Under load every address is proved by a cookie.
                ticket, clock = None, 0.0
                if not loaded and ext.PRE_SHARED_KEYS.code in hello.extensions:
                    clock = chosen.clock()
                    ticket = returning.shown(chosen, DTLS, hello, message, place_of(address), clock)
                # A retry for the group alone is stateless as well: its second hello comes back here.
                if (
                    ((self.require_cookie or loaded) and ticket is None)
                    or not select(chosen, hello).usable
                    # RFC 9147 section 5.1 [9147-5.1-7]: last, as it is remembered.
                    or (
                        ticket is not None
                        and not returning.counts(chosen, ticket.grant, returning.due(ticket, hello), clock)
                    )
                ):
                    # Early data does not survive a retry.
                    self.counters.early_data_rejected += ext.EARLY_DATA.code in hello.extensions
                    return self._retry(whole, hello, message, address, chosen, now)
                self.counters.tickets_as_proof += ticket is not None
                return self._attempt(whole, hello, message, address, None, b"", 0, ticket)
        except ProtocolError as error:
            return self._alert(error.alert, whole, now, otherwise=Discard.MALFORMED_HELLO)
        facts = self.jar.check(cookie, address, now) if message_seq == 1 else None
        if facts is None:
            self.counters.cookies_refused += 1
            # RFC 9147 section 5.1 [9147-5.1-11], decision A7.
            return self._alert(Alert.ILLEGAL_PARAMETER, whole, now, otherwise=Discard.BAD_COOKIE)
        self.counters.cookies_accepted += 1
        request = retry_request(DTLS, b"", facts.suite, facts.group, cookie)
        return self._attempt(whole, hello, message, address, facts, request, message_seq)

    def _retry(
        self,
        whole: WholeHello,
        hello: ClientHello,
        message: bytes,
        address: Address,
        config: Config,
        now: float,
    ) -> Answer:
        """Answer a first ClientHello; what the answer says is all that is kept, and in the cookie.

        RFC 9147 sections 5.1 and 11 [9147-5.1-1, 9147-5.1-6, 9147-11-1, 9147-11-4]: every new handshake
        comes by here, unless the endpoint was told that addresses cannot be forged.
        """
        # The round trip is spent on the cookie anyway, so the better group costs none (decision 0004).
        # RFC 9147 section 5.2 [9147-5.2-6]: never a HelloVerifyRequest.
        selection = select(config, hello, retry_anyway=True)
        spec = selection.spec
        group = None if selection.share else selection.group
        digest = message_hash(config.provider, SUITES[spec.suite], message)
        cookie = self.jar.make(CookieFacts(spec.suite, group, digest), address, now)
        request = retry_request(DTLS, b"", spec.suite, group, cookie)
        body = request[HEADER_BYTES:]
        content = fragment_header(HandshakeType.SERVER_HELLO, len(body), 0, 0, len(body)) + body
        # The number of the client's record: it grows with each hello, so ours never repeats.
        datagram = encode_plaintext(ContentType.HANDSHAKE, whole.highest_record, content)
        if len(datagram) > AMPLIFICATION * whole.received_bytes:
            return Discard.OVER_BUDGET
        self.counters.hello_retry_requests += 1
        self.strangers.answered(len(datagram))
        return Reply(datagram)

    def _attempt(
        self,
        whole: WholeHello,
        hello: ClientHello,
        message: bytes,
        address: Address,
        facts: CookieFacts | None,
        request: bytes,
        message_seq: int,
        ticket: Opened | None = None,
    ) -> Attempt:
        return Attempt(
            address=address,
            server_name=hello.extensions.get(ext.SERVER_NAME),
            message=message,
            hello=hello,
            facts=facts,
            retry_request=request,
            message_seq=message_seq,
            plain_sequence=whole.highest_record,
            received_bytes=whole.received_bytes,
            ticket=ticket,
        )

    def refusal(self, attempt: Attempt) -> bytes:
        """The datagram that tells a client it is not welcome."""
        return _alert_record(Alert.ACCESS_DENIED, attempt.plain_sequence)

    def _alert(self, alert: Alert, whole: WholeHello, now: float, *, otherwise: Discard) -> Reply | Discard:
        """One alert for a hello that is well formed and cannot be served; `otherwise` if there were many."""
        if not self.strangers.may_alert(now):
            return otherwise
        return Reply(_alert_record(alert, whole.highest_record))


def sieve_for(gate: Gate, provider: CryptoProvider) -> Sieve | None:
    """The compiled part of `gate`; None where it is not built, or hashes are not OpenSSL's."""
    kind = type(provider)
    if not (
        uses_compiled(provider)
        and isinstance(provider, OpenSslProvider)
        and kind.digest is OpenSslProvider.digest
        and kind.hmac is OpenSslProvider.hmac
    ):
        return None
    from sealwire.dtls._gate import Sieve

    return Sieve(gate, provider)


def _alert_record(alert: Alert, sequence: int) -> bytes:
    return encode_plaintext(ContentType.ALERT, sequence, bytes((_FATAL, alert)))


def _visible_cookie(fragment: Fragment) -> bytes | None:
    """The cookie of a ClientHello of which only the beginning is known; None if it is not in there."""
    if fragment.offset:
        return None
    reader = Reader(fragment.data, "ClientHello")
    try:
        reader.take(2 + 32)
        reader.vector8(high=32)
        reader.vector8()
        reader.vector16()
        reader.vector8()
        reader.u16()
        while True:
            code, body = reader.u16(), reader.sub16()
            if code == ext.COOKIE.code:
                return body.vector16(low=1)
    except ProtocolError:
        return None
