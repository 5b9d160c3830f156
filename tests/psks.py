"""Configurations for tests with pre-shared keys: sides that know given keys, with certificates or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sealwire.context import PROTOCOL_CLIENT, PROTOCOL_SERVER, Config, Context
from sealwire.crypto.psk import ExternalPsk
from tests import configs

#: What most tests share; 32 bytes, so no hash finds fault with it.
SECRET = bytes(range(32))
DEVICE = ExternalPsk("device", SECRET)


def broken(_: object) -> Any:
    """A callback that fails."""
    raise ZeroDivisionError


def client_context(*offered: ExternalPsk, trusting: bool = False, **options: Any) -> Context:
    """A client that offers one key (`offered` is one or none).

    Args:
        trusting: whether it also trusts the default server's certificate.
        options: groups, suites and key_shares, as :func:`tests.configs.client_context` takes them.
    """
    if trusting:
        context = configs.client_context(**options)
    else:
        context = Context(PROTOCOL_CLIENT)
        _choose(context, **options)
    if offered:
        (key,) = offered
        context.set_psk_client_callback(lambda hint: key)
    return context


def server_context(*known: ExternalPsk, certified: bool = False, **options: Any) -> Context:
    """A server that knows the keys `known`; with `certified` it has the default certificate, too."""
    if certified:
        context = configs.server_context(**options)
    else:
        context = Context(PROTOCOL_SERVER)
        _choose(context, **options)
    keys = {key.identity.decode(): key for key in known}
    context.set_psk_server_callback(keys.get)
    return context


def client(*offered: ExternalPsk, **options: Any) -> Config:
    return client_context(*offered, **options).config()


def server(*known: ExternalPsk, **options: Any) -> Config:
    return server_context(*known, **options).config()


def offering(config: Config, *keys: ExternalPsk) -> Config:
    """A client that offers several keys, which the callback of :mod:`ssl` has no words for."""
    each = [replace(config, psk_client=_always(key)) for key in keys]

    class Several(Config):
        __slots__ = ()

        def offer_psks(self, prefix: bytes) -> Any:
            return tuple(psk for one in each for psk in one.offer_psks(prefix))

    return Several(**{name: getattr(each[0], name) for name in Config.__slots__})


def _always(key: ExternalPsk) -> Any:
    return lambda hint: key


def _choose(
    context: Context,
    groups: Sequence[str] = (),
    suites: Sequence[str] = (),
    key_shares: Sequence[str] = (),
    alpn: Sequence[str] = (),
) -> None:
    if groups:
        context.set_groups(list(groups))
    if suites:
        context.set_ciphersuites(list(suites), allow_short_tags=True)
    if key_shares:
        context.set_key_shares(list(key_shares))
    if alpn:
        context.set_alpn_protocols(list(alpn))
