"""Pre-shared keys in hellos: offering them with binders, and choosing one (RFC 8446 section 4.2.11).

A binder is a MAC under the key over the hello up to the list of binders, and over what came before
it, so a hello is encoded first with binders of zeros and their bytes are put in afterwards.  Only
psk_dhe_ke is used unless both sides ask for psk_ke as well: every handshake has fresh key exchange
secrets, whatever becomes of the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sealwire.crypto.psk import Psk, PskMode, binder, binder_fits
from sealwire.crypto.suites import SUITES
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13 import tickets
from sealwire.tls13.contract import VERIFY_NONE, Exchange, PeerIdentity, Settings
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.messages import ClientHello
from sealwire.tls13.tickets import EarlyGrant, SessionTicket
from sealwire.tls13.transcript import Transcript
from sealwire.tls13.values import OfferedPsks, PskIdentity

# Looking an identity up costs a call into the application, so a hello buys only a few.
_MAX_IDENTITIES: Final = 5
_HASH_BYTES: Final = {spec.hash_name: spec.hash_bytes for spec in SUITES.values()}


@dataclass(frozen=True, slots=True)
class ChosenPsk:
    """A key both sides have, and its place in the client's list."""

    index: int
    psk: Psk
    #: Whether a key exchange goes with it.
    mode: PskMode
    #: Who the client was, where the key is a ticket's.
    peer: PeerIdentity | None = None
    #: What the ticket says of early data, and when it should come.
    grant: EarlyGrant | None = None
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key a client offers; `ticket` where it comes from one."""

    psk: Psk
    ticket: SessionTicket | None = None

    def identity(self, now: float) -> PskIdentity:
        age = self.ticket.obfuscated_age(now) if self.ticket is not None else 0
        return PskIdentity(self.psk.identity, age)


def candidates(
    exchange: Exchange, server_name: str | None, ticket: SessionTicket | None
) -> tuple[Candidate, ...]:
    """What a client offers: its ticket, if it is still good, and the application's keys."""
    keys = exchange.settings.offer_psks(exchange.flavor.label_prefix)
    external = tuple(Candidate(one) for one in keys)
    if ticket is None or not ticket.usable(exchange, server_name):
        return external
    return (Candidate(ticket.psk(), ticket), *external)


def offer(exchange: Exchange, block: Extensions, psks: Sequence[Candidate]) -> None:
    """Put `psks` into a ClientHello's extensions, as the last ones, with binders still to be made."""
    if psks or exchange.settings.num_tickets:
        # RFC 8446 section 4.2.9: who offers keys says how, and who wants tickets says so by this.
        block.add(ext.PSK_KEY_EXCHANGE_MODES, bytes(exchange.settings.psk_modes))
    wanted = exchange.settings.num_tickets
    if wanted:
        # RFC 9149 section 2 [9149-1]; coming back uses up one ticket, so one is asked for then.
        block.add(ext.TICKET_REQUEST, exchange.settings.ticket_request or (wanted, 1))
    if psks:
        now = exchange.settings.clock()
        identities = tuple(one.identity(now) for one in psks)
        binders = tuple(bytes(_HASH_BYTES[one.psk.hash_name]) for one in psks)
        block.add(ext.PRE_SHARED_KEYS, OfferedPsks(identities, binders))


def with_binders(
    exchange: Exchange, hello: ClientHello, psks: Sequence[Candidate], before: Transcript | None
) -> tuple[ClientHello, bytes]:
    """`hello` with the binders its keys must have, and its message; `before` is the transcript of a retry."""
    message = hello.encode(exchange.flavor)
    if not psks:
        return hello, message
    covered = truncated(message, hello)
    binders = []
    for one in psks:
        digest = _hash_over(exchange, one.psk, before, covered)
        binders.append(binder(exchange.provider, exchange.flavor.label_prefix, one.psk, digest))
    block = Extensions(Where.CLIENT_HELLO)
    block.copy_from(hello.extensions, but=frozenset((ext.PRE_SHARED_KEYS.code,)))
    identities = hello.extensions.require(ext.PRE_SHARED_KEYS).identities
    block.add(ext.PRE_SHARED_KEYS, OfferedPsks(identities, tuple(binders)))
    # Nothing else changed, and the binders come last.
    return replace(hello, extensions=block), covered + ext.binder_list(binders)


def truncated(message: bytes, hello: ClientHello) -> bytes:
    """The hello without its list of binders, which stands at its very end."""
    binders = hello.extensions.require(ext.PRE_SHARED_KEYS).binders
    return message[: len(message) - 2 - sum(1 + len(one) for one in binders)]


def _hash_over(exchange: Exchange, psk: Psk, before: Transcript | None, covered: bytes) -> bytes:
    if before is not None:
        # RFC 8446 section 4.2.11.2 [8446-KS-3]: the first hello and the retry are covered as well.
        return before.hash_with(covered)
    digest = exchange.provider.digest(psk.hash_name)
    digest.update(covered)
    return digest.digest()


def exchange_needed(settings: Settings, psks: Sequence[Candidate]) -> bool:
    """Whether a client must send key shares: it may need one with its keys, or with certificates instead."""
    verifier = settings.verifier
    certificates = verifier.accepts_certificates or verifier.accepts_raw_public_keys
    return (
        not psks
        or PskMode.PSK_DHE_KE in settings.psk_modes
        or certificates
        or settings.verify_mode == VERIFY_NONE
    )


def agreed_mode(settings: Settings, hello: ClientHello, *, can_exchange: bool) -> PskMode | None:
    """How a pre-shared key of this client would be used, by our preference; None for not at all.

    Args:
        can_exchange: whether there is a group both sides support.
    """
    # RFC 8446 section 4.2.9 [8446-PSK-1]: only what the client lists.
    theirs = hello.extensions.get(ext.PSK_KEY_EXCHANGE_MODES) or b""
    for mode in settings.psk_modes:
        if mode in theirs and (can_exchange or mode is PskMode.PSK_KE):
            return mode
    return None


def choose(
    exchange: Exchange,
    hello: ClientHello,
    message: bytes,
    hash_name: str,
    mode: PskMode | None,
    before: Transcript | None,
) -> ChosenPsk | None:
    """The first key of the client's list that we know and that goes with `hash_name`, its binder checked.

    Args:
        mode: from :func:`agreed_mode`.

    Raises:
        HandshakeError: missing_extension without psk_key_exchange_modes, illegal_parameter for lists that
            do not match, decrypt_error for a wrong binder.
    """
    offered = hello.extensions.get(ext.PRE_SHARED_KEYS)
    if offered is None:
        return None
    # RFC 8446 section 4.2.9 [8446-PSK-1]
    hello.extensions.require(ext.PSK_KEY_EXCHANGE_MODES)
    if len(offered.identities) != len(offered.binders):
        # RFC 8446 section 4.2.11 [8446-PSK-3]
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "pre_shared_key has not a binder for each identity")
    if mode is None:
        return None
    prefix = exchange.flavor.label_prefix
    for index, entry in enumerate(offered.identities[:_MAX_IDENTITIES]):
        resumed = tickets.accept(exchange, entry.identity, hello.extensions.get(ext.SERVER_NAME))
        psk = resumed.grant.psk if resumed is not None else exchange.settings.find_psk(entry.identity, prefix)
        if psk is None or psk.hash_name != hash_name:
            # [8446-PSK-2]: an unknown identity is no error, there may be another, or certificates.
            continue
        # Of a ticket that stands for a cookie the binder was checked then, in this very hello.
        if index or resumed is None or resumed is not exchange.early.shown:
            digest = _hash_over(exchange, psk, before, truncated(message, hello))
            if not binder_fits(exchange.provider, prefix, psk, digest, offered.binders[index]):
                # [8446-PSK-2]
                raise HandshakeError(Alert.DECRYPT_ERROR, "the binder of a pre-shared key does not fit")
        if resumed is None:
            return ChosenPsk(index, psk, mode)
        due = resumed.grant.due(entry.obfuscated_ticket_age)
        return ChosenPsk(index, psk, mode, resumed.peer, resumed.grant, due)
    return None
