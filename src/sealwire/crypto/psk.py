"""Pre-shared keys: what an application has, what TLS makes of it, and the binders that prove it.

An :class:`ExternalPsk` is agreed outside: an identity, a secret, and perhaps the hash it was made
for.  A :class:`Psk` is what a handshake offers or accepts; it belongs to one hash and one kind, and
the kind is in its binder's label, so that a ticket, an external and an imported key never pass for
one another.  Importing (RFC 9258) makes of one external key a separate one for each hash, protocol
and context, which ends its reuse; both sides must do it.

Every comparison of binders is in constant time.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX, Secret, expand_label
from sealwire.crypto.providers import CryptoProvider
from sealwire.errors import Alert, ConfigurationError, HandshakeError, ProtocolError
from sealwire.wire import Reader, Writer

__all__ = [
    "PSK_MINIMUM_BYTES",
    "ClientCallback",
    "ExternalPsk",
    "ImportedIdentity",
    "Psk",
    "PskKind",
    "PskMode",
    "ServerCallback",
    "ask_client",
    "ask_server",
    "binder",
    "binder_fits",
    "early_secret",
    "find_psk",
    "parse_psk_modes",
    "psks_to_offer",
]

# RFC 9257 section 6: below 128 bits of entropy a recorded handshake yields the key to a search.
PSK_MINIMUM_BYTES: Final = 16

# RFC 9258 section 3 and its registry of KDF identifiers: HKDF_SHA256 and HKDF_SHA384.
_KDF_OF_HASH: Final = MappingProxyType({"sha256": 0x0001, "sha384": 0x0002})
_HASH_OF_KDF: Final = {kdf: name for name, kdf in _KDF_OF_HASH.items()}
_HASH_BYTES: Final = MappingProxyType({"sha256": 32, "sha384": 48})
# RFC 9258 section 3 [9258-1]: the protocol a key is imported for, by the prefix of its HKDF labels.
_PROTOCOL_OF_PREFIX: Final = MappingProxyType({TLS13_PREFIX: 0x0304, DTLS13_PREFIX: 0xFEFC})


class PskMode(enum.IntEnum):
    """PskKeyExchangeMode (RFC 8446 section 4.2.9).

    PSK_KE has no key exchange but the key itself: who learns it later reads everything recorded before.
    """

    PSK_KE = 0
    PSK_DHE_KE = 1

    # Members are equal to their numbers, so they hash like them; Enum's own hash is a Python call.
    __hash__ = int.__hash__


def parse_psk_modes(
    names: str | Sequence[str], *, allow_without_forward_secrecy: bool
) -> tuple[PskMode, ...]:
    """Modes by name (``"psk_dhe_ke"``, ``"psk_ke"``), in the order given; a list, or one string with ``:``.

    Raises:
        ConfigurationError: an unknown name, one twice, none at all, or psk_ke without its permission.
    """
    known = {mode.name.lower(): mode for mode in PskMode}
    result: list[PskMode] = []
    for name in names.split(":") if isinstance(names, str) else names:
        mode = known.get(name.strip().lower())
        if mode is None:
            raise ConfigurationError(
                f"unknown PSK key exchange mode {name!r}: choose from psk_dhe_ke, psk_ke"
            )
        if mode in result:
            raise ConfigurationError(f"PSK key exchange mode {name!r} is listed twice: name each once")
        result.append(mode)
    if not result:
        raise ConfigurationError("no PSK key exchange mode is left: name psk_dhe_ke")
    if PskMode.PSK_KE in result and not allow_without_forward_secrecy:
        raise ConfigurationError(
            "psk_ke gives up forward secrecy: who learns the key later reads what was recorded before; "
            "leave it out, or pass allow_without_forward_secrecy=True"
        )
    return tuple(result)


class PskKind(enum.Enum):
    """Where a key came from; the value is the label of its binder key."""

    # RFC 8446 section 7.1 [8446-KS-2]; RFC 9258 section 5.2 [9258-1] for the last.
    EXTERNAL = b"ext binder"
    RESUMPTION = b"res binder"
    IMPORTED = b"imp binder"


@dataclass(frozen=True, slots=True)
class Psk:
    """A key as a handshake knows it.

    Attributes:
        identity: what the ClientHello carries for it.
        secret: the key itself.
        hash_name: the one hash it goes with, ``"sha256"`` or ``"sha384"``.
        kind: ticket, external or imported.
    """

    identity: bytes
    secret: Secret
    hash_name: str
    kind: PskKind


@dataclass(frozen=True, slots=True)
class ImportedIdentity:
    """The identity of an imported key (RFC 9258 section 5.1); `target_protocol`, `target_kdf` as numbers."""

    external_identity: bytes
    context: bytes
    target_protocol: int
    target_kdf: int

    def encode(self) -> bytes:
        writer = Writer()
        writer.vector16(self.external_identity)
        writer.vector16(self.context)
        writer.u16(self.target_protocol)
        writer.u16(self.target_kdf)
        return writer.finish()

    @classmethod
    def decode(cls, identity: bytes) -> ImportedIdentity:
        """ProtocolError(decode_error) for anything else, which an identity may well be."""
        reader = Reader(identity, "ImportedIdentity")
        decoded = cls(reader.vector16(1), reader.vector16(), reader.u16(), reader.u16())
        reader.finish()
        return decoded


class ExternalPsk:
    """A key agreed outside of TLS.  Immutable; its `repr` hides the secret.

    Args:
        identity: its name, which travels in the clear; text stands for its UTF-8.
        secret: at least 16 bytes, random: a key derived from a password is found by search (RFC 9257).
        hash_name: the hash it is for, ``"sha256"`` unless agreed otherwise.
        imported: derive a key of its own for each hash and protocol first (RFC 9258); both sides must.
        context: of an imported key, such as who is who; both sides must have the same.

    Raises:
        ConfigurationError: an identity or secret of a length that cannot be, an unknown hash, a context
            without `imported`.
    """

    __slots__ = ("context", "hash_name", "identity", "imported", "secret")

    def __init__(
        self,
        identity: str | bytes,
        secret: bytes,
        *,
        hash_name: str = "sha256",
        imported: bool = False,
        context: bytes = b"",
    ) -> None:
        self.identity: Final = _identity_bytes(identity)
        self.secret: Final = Secret(secret)
        self.hash_name: Final = hash_name
        self.imported: Final = imported
        self.context: Final = bytes(context)
        # RFC 8446 section 4.2.11: opaque identity<1..2^16-1>; an imported one holds eight bytes more.
        longest = 0xFFFF - (8 + len(self.context) if imported else 0)
        if not 1 <= len(self.identity) <= longest:
            raise ConfigurationError(
                f"a PSK identity with its context has 1 to {longest} bytes, not {len(self.identity)}"
            )
        if len(self.secret) < PSK_MINIMUM_BYTES:
            raise ConfigurationError(
                f"a PSK of {len(self.secret)} bytes can be guessed: use at least {PSK_MINIMUM_BYTES}"
            )
        if hash_name not in _HASH_BYTES:
            raise ConfigurationError(f"a PSK's hash is one of {', '.join(_HASH_BYTES)}, not {hash_name!r}")
        if self.context and not imported:
            raise ConfigurationError("only an imported PSK has a context: pass imported=True with it")

    def __repr__(self) -> str:
        imported = f" imported context={self.context!r}" if self.imported else ""
        return f"<ExternalPsk {self.identity!r} {self.hash_name}{imported}>"

    def as_it_is(self) -> Psk:
        """The key used directly, with its own hash (RFC 8446 section 4.2.11)."""
        assert not self.imported, "an imported PSK is never used as it is"
        return Psk(self.identity, self.secret, self.hash_name, PskKind.EXTERNAL)

    def import_for(self, provider: CryptoProvider, prefix: bytes, target_hash: str) -> Psk:
        """The key imported for one hash (RFC 9258 section 5.1).

        Args:
            prefix: TLS13_PREFIX or DTLS13_PREFIX; it also says which protocol the key is for.
        """
        assert self.imported, "external and imported use of one PSK are never mixed"
        target = ImportedIdentity(
            self.identity, self.context, _PROTOCOL_OF_PREFIX[prefix], _KDF_OF_HASH[target_hash]
        )
        identity = target.encode()
        # RFC 9258 section 5.1 [9258-1]: extracted and expanded with the hash of the external key, to the
        # length of the target's.
        digest = provider.digest(self.hash_name)
        digest.update(identity)
        extracted = provider.hkdf_extract(self.hash_name, b"", self.secret)
        # The prefix is the protocol's own: "dtls13" for DTLS, as BoringSSL has it (ambiguity A20).
        secret = expand_label(
            provider,
            self.hash_name,
            extracted,
            prefix,
            b"derived psk",
            digest.digest(),
            _HASH_BYTES[target_hash],
        )
        return Psk(identity, Secret(secret), target_hash, PskKind.IMPORTED)


def _identity_bytes(identity: str | bytes) -> bytes:
    # Applications see identities as text, as in ssl; bytes that are none survive the way file names do.
    return identity.encode("utf-8", "surrogateescape") if isinstance(identity, str) else bytes(identity)


def psks_to_offer(
    provider: CryptoProvider, prefix: bytes, psk: ExternalPsk, hash_names: Iterable[str]
) -> tuple[Psk, ...]:
    """What a client whose suites use `hash_names` puts into its hello for `psk`, best first.

    Nothing, for a key whose hash no suite has; an imported one is offered once for each hash.
    """
    hashes = dict.fromkeys(hash_names)
    if psk.imported:
        return tuple(psk.import_for(provider, prefix, name) for name in hashes)
    return (psk.as_it_is(),) if psk.hash_name in hashes else ()


def find_psk(
    provider: CryptoProvider, prefix: bytes, identity: bytes, lookup: Callable[[bytes], ExternalPsk | None]
) -> Psk | None:
    """The key a client means by `identity`; None if `lookup` knows none that fits.

    `lookup` is asked at most twice: an imported identity contains the external one, and bytes that look
    like one may be an ordinary identity all the same.
    """
    try:
        target = ImportedIdentity.decode(identity)
    except ProtocolError:
        pass
    else:
        known = lookup(target.external_identity)
        if known is not None and known.imported:
            # RFC 9258 section 5.1: a key for another protocol, hash or context is another key.
            if (
                target.target_protocol != _PROTOCOL_OF_PREFIX[prefix]
                or target.target_kdf not in _HASH_OF_KDF
                or target.context != known.context
                or target.external_identity != known.identity
            ):
                return None
            return known.import_for(provider, prefix, _HASH_OF_KDF[target.target_kdf])
    known = lookup(identity)
    if known is None or known.imported or known.identity != identity:
        return None
    return known.as_it_is()


def early_secret(provider: CryptoProvider, psk: Psk) -> Secret:
    """The Early Secret with `psk` (RFC 8446 section 7.1 [8446-KS-1])."""
    return Secret(provider.hkdf_extract(psk.hash_name, b"", psk.secret))


def binder(provider: CryptoProvider, prefix: bytes, psk: Psk, transcript_hash: bytes) -> bytes:
    """The PskBinderEntry of `psk` (RFC 8446 section 4.2.11.2 [8446-PSK-2]).

    Args:
        transcript_hash: with the hash of `psk`, over everything up to and without the list of binders: a
            first ClientHello and HelloRetryRequest too, where there were any.
    """
    name, n = psk.hash_name, _HASH_BYTES[psk.hash_name]
    empty = provider.digest(name).digest()
    key = expand_label(provider, name, early_secret(provider, psk), prefix, psk.kind.value, empty, n)
    finished_key = expand_label(provider, name, key, prefix, b"finished", b"", n)
    return provider.hmac(name, finished_key, transcript_hash)


def binder_fits(
    provider: CryptoProvider, prefix: bytes, psk: Psk, transcript_hash: bytes, received: bytes
) -> bool:
    """Whether `received` is the binder of `psk`, found out in constant time [8446-PSK-2]."""
    return hmac.compare_digest(binder(provider, prefix, psk, transcript_hash), received)


#: Called with None (TLS 1.3 has no identity hint); returns ``(identity, secret)`` or an ExternalPsk; None, or
#: None for the identity, offers no key.
ClientCallback = Callable[[None], "tuple[str | bytes | None, bytes] | ExternalPsk | None"]
#: Called with an identity as text (``os.fsencode`` gives back bytes that were none); returns its secret or an
#: ExternalPsk; None or ``b""`` for an identity it does not know.
ServerCallback = Callable[[str], "bytes | ExternalPsk | None"]


def ask_client(callback: ClientCallback) -> ExternalPsk | None:
    """The key the application wants to offer.

    Raises:
        HandshakeError: internal_error, the callback failed or returned what is no key.
    """
    try:
        answer = callback(None)
        if answer is None or isinstance(answer, ExternalPsk):
            return answer
        identity, secret = answer
        return None if identity is None else ExternalPsk(identity, secret)
    except ProtocolError:
        raise
    except Exception as error:
        raise HandshakeError(Alert.INTERNAL_ERROR, "the PSK client callback failed") from error


def ask_server(callback: ServerCallback, identity: bytes) -> ExternalPsk | None:
    """The key of `identity`, as the application knows it.

    Raises:
        HandshakeError: internal_error, the callback failed or returned what is no key.
    """
    try:
        answer = callback(identity.decode("utf-8", "surrogateescape"))
        if isinstance(answer, ExternalPsk) and answer.identity != identity:
            raise ValueError("the PSK that was returned has another identity than the one asked for")
        if answer is None or isinstance(answer, ExternalPsk):
            return answer
        return ExternalPsk(identity, answer) if answer else None
    except ProtocolError:
        raise
    except Exception as error:
        raise HandshakeError(Alert.INTERNAL_ERROR, "the PSK server callback failed") from error
