"""Who comes in: from an attempt whose address is proved to a connection that is paid for.

The limits speak first, then the application's callback, then the ledger; only then anything is made
for the peer (docs/design.md, journey c).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from sealwire.context import Config
from sealwire.dtls.connection import Connection
from sealwire.dtls.flight import UNSURE_TIMEOUTS, timeout_after
from sealwire.dtls.gate import Attempt
from sealwire.dtls.handover import Claim, unseal
from sealwire.dtls.place import place_of
from sealwire.dtls.upkeep import Upkeep
from sealwire.errors import ConfigurationError
from sealwire.limits import Account, Limits
from sealwire.telemetry import EndpointCounters
from sealwire.tls13.contract import EarlyData, EarlyPhase
from sealwire.tls13.handshake import DTLS, Handshake


class Admission(enum.Enum):
    """What an admission callback says of an attempt whose address is proved."""

    ACCEPT = "accept"
    #: Say nothing, keep nothing.
    DROP = "drop"
    #: Tell the client with an alert (access_denied).
    REFUSE = "refuse"


def accept_all(attempt: Attempt) -> Admission:
    """The admission policy unless another is given; the limits hold in any case."""
    return Admission.ACCEPT


@dataclass(frozen=True, slots=True)
class Terms:
    """What every connection of an endpoint is made with; the fields are those of :class:`Endpoint`."""

    limits: Limits
    mtu: int
    initial_timeout: float
    limit_unproved: bool
    cid_bytes: int | None
    upkeep: Upkeep
    issue_cid: Callable[[int], bytes]
    totals: EndpointCounters


def open_connection(
    attempt: Attempt, config: Config, account: Account, terms: Terms, now: float
) -> Connection:
    """The connection of an admitted attempt, before it has been given the hello."""
    address = attempt.address
    config = config.within(terms.limits)
    timeout = terms.initial_timeout
    cid = terms.issue_cid(terms.cid_bytes) if terms.cid_bytes else (b"" if terms.cid_bytes == 0 else None)
    if attempt.facts is None:
        phase = EarlyPhase(wanted=True, place=place_of(address), shown=attempt.ticket)
        handshake = Handshake.server(config, DTLS, connection_id=cid, early=phase)
    else:
        handshake = Handshake.from_cookie(
            config,
            DTLS,
            suite=attempt.facts.suite,
            group=attempt.facts.group,
            client_hello_1_hash=attempt.facts.client_hello_1_hash,
            hello_retry_request=attempt.retry_request,
            connection_id=cid,
            place=place_of(address),
        )
        # From our retry request to the hello that brings its cookie: a round trip, if neither was lost.
        timeout = timeout_after(attempt.facts.age, UNSURE_TIMEOUTS * timeout)
    connection = Connection(
        config,
        handshake,
        now=now,
        limits=terms.limits,
        mtu=terms.mtu,
        initial_timeout=timeout,
        account=account,
        # Our HelloRetryRequest was message 0 of ours (decision A9).
        next_message_seq=attempt.message_seq,
        next_peer_message_seq=attempt.message_seq + 1,
        plain_sequence=attempt.plain_sequence,
        address_proved=attempt.facts is not None or not terms.limit_unproved,
        issue_cid=terms.issue_cid,
        upkeep=terms.upkeep,
        totals=terms.totals,
    )
    connection.address = address
    if attempt.ticket is not None:
        connection.show_address()
    return connection


def begin(connection: Connection, attempt: Attempt, totals: EndpointCounters, now: float) -> None:
    """Give a connection its first hello, and what came behind it; what it accepts is counted in `totals`."""
    connection.begin(attempt.message, attempt.hello, attempt.received_bytes, now)
    if connection.early_data is EarlyData.NOT_OFFERED:
        return
    accepted = connection.early_data is EarlyData.ACCEPTED
    totals.early_data_accepted += accepted
    totals.early_data_rejected += not accepted
    if accepted and attempt.rest:
        connection.receive_run((attempt.rest,), now)


def import_connection(
    state: bytes, key: bytes, config: Config, claim: Claim, account: Account, terms: Terms, now: float
) -> Connection:
    """The connection of another process; see :meth:`sealwire.dtls.Endpoint.adopt` for what it raises."""
    config = config.within(terms.limits)
    try:
        moved = unseal(state, key, config, claim)
        connection = Connection.again(
            moved,
            config,
            now,
            terms.limits,
            account,
            terms.initial_timeout,
            terms.upkeep,
            terms.issue_cid,
            terms.totals,
        )
    except BaseException:
        account.close()
        raise
    if any(len(cid) != (terms.cid_bytes or 0) for cid in connection.cids.accepted):
        # A record does not say how long its id is, so all of an Endpoint have one length.
        connection.abort()
        raise ConfigurationError(f"its connection ids have not {terms.cid_bytes or 0} bytes, as others here")
    return connection
