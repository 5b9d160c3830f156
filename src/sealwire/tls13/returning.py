"""A client that comes back: what its ticket shows of where it is, before anything is kept for it.

A ticket says where its client was when it was issued, which proves no less than a cookie that this client
receives what is sent there, and its binder that the hello is that client's.  RFC 9147 section 5.1 lets a
server do without the cookie then.  Anybody who saw the hello can send it again, though, so a ticket counts
*once*, in the register it was issued beside (`crypto/strikes.py`): a copy, one that does not come when it
should, and one from elsewhere are as good as none, and their senders are asked for a cookie (decision 0027).

Here is what early data and such a hello have in common.  One ticket is opened at most, the first, and nothing
is computed before that.
"""

from __future__ import annotations

from sealwire.crypto.psk import binder_fits
from sealwire.tls13 import extensions as ext
from sealwire.tls13 import psk
from sealwire.tls13.contract import Settings
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import ClientHello
from sealwire.tls13.tickets import EarlyGrant, Opened, open_ticket


def shown(
    settings: Settings, flavor: Flavor, hello: ClientHello, message: bytes, place: bytes, now: float
) -> Opened | None:
    """The ticket by which a first hello shows that its client is at `place`; nothing is remembered yet.

    `now` is the settings' clock.

    None for a hello that has to prove its address otherwise.
    """
    register = settings.strikes
    offered = hello.extensions.get(ext.PRE_SHARED_KEYS)
    if register is None or offered is None or not place or not settings.num_tickets:
        return None
    brings_early_data = bool(settings.max_early_data_size) and ext.EARLY_DATA.code in hello.extensions
    if not (brings_early_data or settings.tickets_as_proof):
        return None
    first = offered.identities[0]
    if not settings.ticket_keys.seems_ours(first.identity) or register.struck(first.identity):
        return None
    opened = open_ticket(settings, flavor, first.identity, hello.extensions.get(ext.SERVER_NAME), now)
    if opened is None or opened.grant.place != place:
        return None
    grant = opened.grant
    if not register.would_accept(grant.register, first.identity, grant.due(first.obfuscated_ticket_age), now):
        return None
    provider = settings.provider
    digest = provider.digest(grant.psk.hash_name)
    digest.update(psk.truncated(message, hello))
    fits = binder_fits(provider, flavor.label_prefix, grant.psk, digest.digest(), offered.binders[0])
    return opened if fits else None


def counts(settings: Settings, grant: EarlyGrant, due: float, now: float) -> bool:
    """Whether the ticket of `grant`, whose hello should come at `due`, counts now: once, and never again."""
    register = settings.strikes
    return register is not None and register.accept(grant.register, grant.psk.identity, due, now)


def due(opened: Opened, hello: ClientHello) -> float:
    """When a hello should come whose first key is `opened`."""
    return opened.grant.due(hello.extensions.require(ext.PRE_SHARED_KEYS).identities[0].obfuscated_ticket_age)
