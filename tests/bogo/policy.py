"""What a test's flags ask of a configuration, said in sealwire's words.

The runner plays against a stack whose certificate policy is the shim's own: it accepts every chain
unless told to refuse it.  So the verifier here is one that does as the flags say; everything else is
the configuration an application would have made with a Context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, overload

from sealwire.context import CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED, PROTOCOL_CLIENT, Config, Context
from sealwire.crypto.certificates import (
    CertificateVerifier,
    Credential,
    PeerCertificate,
    Purpose,
    VerifiedKey,
    VerifiedPeer,
    check_may_sign,
)
from sealwire.crypto.credentials import load_credential, load_raw_credential
from sealwire.crypto.groups import GROUPS, HYBRID_GROUPS, Group
from sealwire.crypto.ocsp import StapleMode
from sealwire.crypto.providers import default_provider
from sealwire.crypto.rawkeys import RawPublicKey
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.srtp import SrtpProfile
from sealwire.crypto.strikes import MAX_WINDOW_SECONDS, StrikeRegister
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.crypto.transparency import parse_timestamps
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError
from sealwire.limits import Limits
from sealwire.tls13.values import CertificateType
from tests.bogo import compressions
from tests.bogo.flags import CredentialFlags, Flags, UnknownFlag
from tests.bogo.wire import Clock

# TLS 1.3 and DTLS 1.3, as versions are written on the wire.
_SPOKEN: Final = (0x0304, 0xFEFC)
# What BoringSSL verifies unless told otherwise.
_SCHEMES: Final = (
    SignatureScheme.ECDSA_SECP256R1_SHA256,
    SignatureScheme.RSA_PSS_RSAE_SHA256,
    SignatureScheme.RSA_PKCS1_SHA256,
    SignatureScheme.ECDSA_SECP384R1_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA384,
    SignatureScheme.RSA_PKCS1_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA512,
    SignatureScheme.RSA_PKCS1_SHA512,
)
# What BoringSSL's server takes.
_EARLY_DATA_BYTES: Final = 14_336
# What the runner expects a server to give.
_TICKETS: Final = 2


class Witness:
    """What happened inside that no fact of the session tells: which credential signed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        #: Index of the credential that signed last; -1 for the default one or none.
        self.signed_with = -1
        #: What a signature takes.
        self.signature_microseconds = 0

    def signing(self, index: int) -> None:
        """A credential is about to sign."""
        self.signed_with = index
        self.clock.microseconds += self.signature_microseconds


class FlagVerifier(CertificateVerifier):
    """Accepts every chain, or none; BoringSSL's two ways of asking have an alert each."""

    __slots__ = ("_alert", "_authority_names", "_key_hash", "_types", "refuse")

    def __init__(self, flags: Flags) -> None:
        super().__init__([])
        self.refuse = "-verify-fail" in flags
        custom = "-use-custom-verify-callback" in flags
        self._alert = Alert.CERTIFICATE_UNKNOWN if custom else Alert.HANDSHAKE_FAILURE
        self._types = flags.lists.get("-accepted-peer-cert-types", [CertificateType.X509])
        self._key_hash = flags.octets("-expect-peer-rpk-sha256")
        names = flags.text("-use-client-ca-list")
        self._authority_names = tuple(map(bytes.fromhex, names.split(","))) if names else ()

    @property
    def accepts_raw_public_keys(self) -> bool:
        return CertificateType.RAW_PUBLIC_KEY in self._types

    @property
    def accepts_certificates(self) -> bool:
        return CertificateType.X509 in self._types

    def authorities(self) -> tuple[bytes, ...]:
        return self._authority_names

    def within(self, max_chain_length: int) -> FlagVerifier:
        return self

    @overload
    def verify(self, shown: RawPublicKey, *, purpose: Purpose, name: str | None) -> VerifiedKey: ...
    @overload
    def verify(self, shown: Sequence[bytes], *, purpose: Purpose, name: str | None) -> VerifiedPeer: ...
    def verify(
        self, shown: RawPublicKey | Sequence[bytes], *, purpose: Purpose, name: str | None
    ) -> VerifiedKey | VerifiedPeer:
        other = isinstance(shown, RawPublicKey) and self._key_hash not in (b"", shown.fingerprint)
        if self.refuse or other:
            raise CertificateError(CertificateFailure.REJECTED, "the test refuses this", self._alert)
        if isinstance(shown, RawPublicKey):
            return VerifiedKey(shown, purpose)
        check_may_sign(shown[0])
        return VerifiedPeer(PeerCertificate(tuple(shown)), tuple(shown), purpose, name)

    def judge_staples(self, peer: VerifiedPeer, staples: Mapping[bytes, bytes], mode: StapleMode) -> None:
        """The runner's staples are no OCSP responses; `checks` looks at their bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class ShimCredential(Credential):
    """Staples whatever it is given: the runner's staples are no OCSP responses."""

    def staple(self, now: float) -> bytes:
        assert isinstance(self.ocsp_response, bytes)
        return self.ocsp_response


@dataclass(frozen=True, slots=True, eq=False)
class ShimConfig(Config):
    """Chooses credentials as BoringSSL: the first that fits in every way, and no connection without.

    Attributes:
        strict: the credentials that must be of an authority the peer names.
        is_server: a server may be asked for another type after this one.
        fails: choosing one fails.
    """

    strict: frozenset[Credential] = frozenset()
    is_server: bool = False
    fails: bool = False

    def credential_for(
        self,
        server_name: str | None,
        schemes: Sequence[SignatureScheme],
        *,
        raw_public_key: bool = False,
        chain_schemes: Sequence[SignatureScheme] | None = None,
        authorities: Sequence[bytes] = (),
    ) -> Credential | None:
        if self.fails:
            raise HandshakeError(Alert.INTERNAL_ERROR, "the certificate callback fails")
        for credential in self.credentials:
            fits = (
                credential.is_raw_public_key is raw_public_key
                and not set(credential.schemes).isdisjoint(schemes)
                and not (credential in self.strict and credential.issuers.isdisjoint(authorities))
            )
            if fits:
                return credential
        others = any(one.is_raw_public_key is not raw_public_key for one in self.credentials)
        if self.credentials and not (others and self.is_server):
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no credential fits, and none is not enough")
        return None


def speaks(flags: Flags) -> bool:
    """Whether the versions a test allows us hold the one we speak."""
    # The wire values of DTLS count downwards.
    sign = -1 if "-dtls" in flags else 1
    ours = sign * _SPOKEN["-dtls" in flags]
    least, most = flags.number("-min-version"), flags.number("-max-version")
    too_old = bool(most) and sign * most < ours
    too_new = bool(least) and sign * least > ours
    return not (too_old or too_new or "-no-tls13" in flags)


def limits(flags: Flags) -> Limits:
    """The runner's clock is virtual and its tests are patient: give up after 13 expiries, as it expects."""
    longest = flags.number("-max-cert-list")
    bound: dict[str, Any] = (
        {"certificate_chain_bytes": longest, "handshake_message_bytes": longest} if longest else {}
    )
    return Limits(
        handshake_seconds=1e9,
        rekey_seconds=1e9,
        retransmissions=12,
        # To the end of both, as BoringSSL.
        epochs=0xFFFF,
        handshake_messages=0xFFFF,
        **bound,
    )


def configuration(
    flags: Flags, retry: Flags, ticket_keys: TicketKeys, strikes: StrikeRegister, witness: Witness
) -> Config:
    """The configuration for one connection; ticket keys and strikes are the same for all of a test.

    Args:
        retry: what holds once the server has rejected early data.
    """
    witness.signature_microseconds = 1000 * flags.number("-private-key-delay-ms")
    context = Context(PROTOCOL_CLIENT)
    context.check_hostname = False
    config = context.config()
    groups = tuple(map(_group, flags.lists.get("-curves", ()))) or config.groups
    # As BoringSSL: the best group, and the best classical one.
    classical = [group for group in groups if group not in HYBRID_GROUPS]
    shares = tuple(dict.fromkeys((groups[0], *classical[:1])))
    if "-no-key-shares" in flags:
        shares = ()
    elif "-key-shares" in flags.lists:
        shares = tuple(map(_group, flags.lists["-key-shares"]))
    schemes = tuple(map(SignatureScheme, flags.lists.get("-verify-prefs", ()))) or _SCHEMES
    credentials = _credentials(flags, witness)
    given: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(Config)}
    given |= {
        "groups": groups,
        "key_shares": shares,
        "signature_schemes": schemes,
        "alpn": _protocols(flags),
        "credentials": tuple(credentials),
        "strict": frozenset(one for one, described in credentials.items() if described.must_match_issuer),
        "is_server": "-server" in flags,
        "fails": "-fail-cert-callback" in flags,
        "choose": _refuse if "-fail-ddos-callback" in flags else None,
        "verify_mode": _verify_mode(flags),
        "verifier": FlagVerifier(retry if "-expect-reject-early-data" in flags else flags),
        "max_early_data_size": _EARLY_DATA_BYTES if "-enable-early-data" in flags else 0,
        "strikes": strikes,
        "ticket_keys": ticket_keys,
        "num_tickets": 0 if "-no-ticket" in flags or "-skip-ticket" in flags else _TICKETS,
        # BoringSSL asks servers alone.
        "staple_mode": _staple_mode(flags),
        "certificate_timestamps": "-enable-signed-cert-timestamps" in flags,
        "srtp_profiles": _srtp_profiles(flags),
        "grease": "-enable-grease" in flags,
        "certificate_compression": compressions.installed(flags),
        "clock": lambda: witness.clock.now,
    }
    return ShimConfig(**given)


def _refuse(name: str | None) -> Config | None:
    raise HandshakeError(Alert.INTERNAL_ERROR, "the test admits nobody")


def strike_register() -> StrikeRegister:
    """Early data is fresh for as long as BoringSSL says."""
    return StrikeRegister(default_provider(), window_seconds=MAX_WINDOW_SECONDS)


def _group(code: int) -> Group:
    group = Group(code)
    if group not in GROUPS:
        raise UnknownFlag(f"group {code}")
    return group


def _srtp_profiles(flags: Flags) -> tuple[SrtpProfile, ...]:
    names = {"SRTP_AES128_CM_SHA1_80": 1, "SRTP_AES128_CM_SHA1_32": 2}
    wanted = flags.text("-srtp-profiles")
    return tuple(SrtpProfile(names[name]) for name in wanted.split(":")) if wanted else ()


def _staple_mode(flags: Flags) -> StapleMode:
    asked = "-enable-ocsp-stapling" in flags and "-server" not in flags
    return StapleMode.OPTIONAL if asked else StapleMode.NONE


def _verify_mode(flags: Flags) -> int:
    if "-server" not in flags:
        raw_keys = CertificateType.RAW_PUBLIC_KEY in flags.lists.get("-accepted-peer-cert-types", ())
        named = "-verify-peer" in flags or raw_keys
        return CERT_REQUIRED if named else CERT_NONE
    if "-verify-peer" in flags:
        return CERT_OPTIONAL
    return CERT_REQUIRED if "-require-any-client-certificate" in flags else CERT_NONE


def _protocols(flags: Flags) -> tuple[bytes, ...]:
    if "-server" not in flags:
        return decode_protocols(flags.octets("-advertise-alpn"))
    if "-decline-alpn" in flags:
        return ()
    if "-reject-alpn" in flags:
        return (b"what no test offers",)
    if "-select-empty-alpn" in flags:
        return (b"",)
    chosen = flags.octets("-select-alpn")
    return (chosen,) if chosen else ()


def decode_protocols(block: bytes) -> tuple[bytes, ...]:
    """Protocol names, each behind its length."""
    names = []
    while block:
        names.append(block[1 : 1 + block[0]])
        block = block[1 + block[0] :]
    return tuple(names)


def _credentials(flags: Flags, witness: Witness) -> dict[Credential, CredentialFlags]:
    """In order of preference; the default one comes last, as in BoringSSL."""
    described = [*enumerate(flags.credentials), (-1, flags.default_credential)]
    return {
        _credential(one, index, witness): one for index, one in described if one.cert_file or one.key_file
    }


def _credential(flags: CredentialFlags, index: int, witness: Witness) -> Credential:
    if flags.kind == "rpk":
        loaded = load_raw_credential(flags.key_file)
    else:
        loaded = load_credential(flags.cert_file, flags.key_file or None)

    def sign(scheme: SignatureScheme, content: bytes) -> bytes:
        witness.signing(index)
        return loaded.sign(scheme, content)

    preferred = tuple(map(SignatureScheme, flags.signing_prefs))
    schemes = tuple(one for one in preferred if one in loaded.schemes) if preferred else loaded.schemes
    given = {field.name: getattr(loaded, field.name) for field in fields(Credential) if field.init}
    given |= {"schemes": schemes, "sign": sign, "ocsp_response": flags.ocsp_response}
    given["timestamps"] = parse_timestamps(flags.timestamps)
    return ShimCredential(**given)
