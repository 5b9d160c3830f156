"""Configurations for tests: a server and a client that trust each other, and what a test changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sealwire.context import (
    CERT_REQUIRED,
    PROTOCOL_CLIENT,
    PROTOCOL_SERVER,
    Config,
    Context,
)
from tests import certificates
from tests.certificates import Identity


def server_context(
    *identities: Identity,
    client_roots: Path | None = None,
    alpn: Sequence[str] = (),
    groups: Sequence[str] = (),
    suites: Sequence[str] = (),
    keylog: Path | None = None,
) -> Context:
    """A server with `identities` (by default one, P-256); with `client_roots` it asks clients for theirs."""
    context = Context(PROTOCOL_SERVER)
    for identity in identities or (certificates.server(),):
        context.load_cert_chain(identity.certfile, identity.keyfile)
    if client_roots is not None:
        context.load_verify_locations(cafile=client_roots)
        context.verify_mode = CERT_REQUIRED
    _choose(context, alpn, groups, suites, keylog)
    return context


def client_context(
    roots: Path | None = None,
    *,
    identity: Identity | None = None,
    alpn: Sequence[str] = (),
    groups: Sequence[str] = (),
    suites: Sequence[str] = (),
    key_shares: Sequence[str] = (),
    keylog: Path | None = None,
) -> Context:
    """A client that verifies against `roots` (of the default server) and may show `identity`."""
    context = Context(PROTOCOL_CLIENT)
    context.load_verify_locations(cafile=roots or certificates.server().cafile)
    if identity is not None:
        context.load_cert_chain(identity.certfile, identity.keyfile)
    _choose(context, alpn, groups, suites, keylog)
    if key_shares:
        context.set_key_shares(list(key_shares))
    return context


def _choose(
    context: Context,
    alpn: Sequence[str],
    groups: Sequence[str],
    suites: Sequence[str],
    keylog: Path | None,
) -> None:
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if groups:
        context.set_groups(list(groups))
    if suites:
        context.set_ciphersuites(list(suites))
    if keylog is not None:
        context.keylog_filename = str(keylog)


def configure(config: Config) -> Callable[[], Config]:
    """What an Endpoint asks for at each new peer."""
    return lambda: config
