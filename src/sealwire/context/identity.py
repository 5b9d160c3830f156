"""Who we are, and whom we believe: the verbs of a Context about certificates, keys and names."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from sealwire.crypto import trust
from sealwire.crypto.certificates import CertificateVerifier, Credential, load_credential
from sealwire.crypto.compression import CompressionAlgorithm, parse_compression_algorithms
from sealwire.crypto.credentials import (
    Password,
    PathName,
    Sign,
    Staple,
    load_callable_credential,
    load_pkcs12_credential,
    load_raw_credential,
)
from sealwire.crypto.ocsp import StapleMode
from sealwire.crypto.pins import Pins
from sealwire.crypto.rawkeys import parse_raw_public_key
from sealwire.errors import ConfigurationError
from sealwire.limits import Limits

CERT_NONE = ssl.CERT_NONE
CERT_OPTIONAL = ssl.CERT_OPTIONAL
CERT_REQUIRED = ssl.CERT_REQUIRED
STAPLE_NONE = StapleMode.NONE
STAPLE_OPTIONAL = StapleMode.OPTIONAL
STAPLE_REQUIRED = StapleMode.REQUIRED


class Identity(ABC):
    """What a :class:`sealwire.Context` knows of its own credentials and of trust in peers."""

    def __init__(self, *, is_client: bool) -> None:
        self._credentials: dict[str, Credential] = {}
        self._roots: dict[bytes, None] = {}
        self._pinned: tuple[str, ...] = ()
        self._raw_keys: tuple[bytes, ...] = ()
        self._verifier: CertificateVerifier | None = None
        self._verify_mode = CERT_REQUIRED if is_client else CERT_NONE
        self._check_hostname = is_client
        self._staple_mode = STAPLE_OPTIONAL if is_client else STAPLE_NONE
        self._certificate_timestamps = False
        self._allow_legacy = False
        self._compression: tuple[CompressionAlgorithm, ...] = ()

    @abstractmethod
    def _changed(self) -> None:
        """What was frozen before is out of date."""

    def _make_verifier(self) -> CertificateVerifier:
        if self._verifier is None:
            self._verifier = CertificateVerifier(
                tuple(self._roots),
                allow_legacy_profile=self._allow_legacy,
                max_chain_length=Limits().certificate_chain_length,
                pinned_fingerprints=self._pinned,
                raw_public_keys=self._raw_keys,
            )
        return self._verifier

    # Our own certificate, and whom we trust.

    def load_cert_chain(
        self,
        certfile: PathName,
        keyfile: PathName | None = None,
        password: Password | None = None,
        *,
        sign: Sign | None = None,
        ocsp_response: Staple = b"",
        timestamps: bytes = b"",
    ) -> None:
        """Load a certificate chain (PEM, leaf first) and its key; replaces one with the same kind of key.

        Args:
            keyfile: the key, where it is not in `certfile`.
            password: of the key, or a function returning it.
            sign: ``sign(scheme, content) -> signature``, in place of a key that is elsewhere, such as in a
                token; see :meth:`sealwire.crypto.credentials.Credential.from_callable`.
            ocsp_response: DER, or a function returning it, to staple to the leaf (RFC 6066 section 8).
            timestamps: a SignedCertificateTimestampList (RFC 6962 section 3.3) for peers that ask.

        Raises:
            ConfigurationError: a sentence that names the file and what to do; nothing has changed.
        """
        if sign is None:
            credential = load_credential(certfile, keyfile, password)
        elif keyfile is not None or password is not None:
            raise ConfigurationError("a key file and a function that signs were given: pass one of them")
        else:
            credential = load_callable_credential(certfile, sign)
        self.use_credential(credential.stapled(ocsp_response).stamped(timestamps))

    def load_pkcs12(
        self, file: PathName, password: Password | None = None, *, ocsp_response: Staple = b""
    ) -> None:
        """Load key and certificate chain of a PKCS #12 file (.p12, .pfx); otherwise as load_cert_chain.

        Raises:
            ConfigurationError: a sentence that names the file and what to do; nothing has changed.
        """
        self.use_credential(load_pkcs12_credential(file, password).stapled(ocsp_response))

    def load_raw_public_key(self, keyfile: PathName, password: Password | None = None) -> None:
        """Show peers that know it the public half of a PEM key in place of a certificate (RFC 7250).

        Raises:
            ConfigurationError: a sentence that names the file and what to do; nothing has changed.
        """
        self.use_credential(load_raw_credential(keyfile, password))

    def use_credential(self, credential: Credential) -> None:
        """Use a credential made elsewhere; replaces one with the same kind of key.

        Raw public keys and certificates do not replace each other.
        """
        self._changed()
        # As in OpenSSL there is one certificate per kind of key; the kind loaded first is preferred.
        form = "raw " if credential.is_raw_public_key else ""
        self._credentials[form + credential.kind] = credential

    def load_verify_locations(
        self,
        cafile: PathName | None = None,
        capath: PathName | None = None,
        cadata: str | bytes | bytearray | memoryview | None = None,
    ) -> None:
        """Trust the certificates of a file, of a directory with hashed names, or in memory.

        Raises:
            TypeError: nothing given.
            ConfigurationError: unreadable, or without one certificate that can be decoded.
        """
        if cafile is None and capath is None and cadata is None:
            raise TypeError("cafile, capath and cadata cannot be all omitted")
        found: list[bytes] = []
        if cafile is not None:
            found.extend(trust.file_roots(cafile))
        if capath is not None:
            found.extend(trust.directory_roots(capath))
        if cadata is not None:
            found.extend(trust.memory_roots(cadata))
        self._trust(found)

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """Trust what the system trusts (ssl.get_default_verify_paths()); nothing, if it trusts nothing."""
        if not isinstance(purpose, ssl.Purpose):
            raise TypeError(f"purpose is an ssl.Purpose, not {type(purpose).__name__}")
        self._trust(trust.system_roots())

    def get_ca_certs(self) -> list[bytes]:
        """The trusted certificates, DER, as ``get_ca_certs(binary_form=True)`` of ssl."""
        return list(self._roots)

    def set_pinned_fingerprints(self, fingerprints: Sequence[str]) -> None:
        """Know peers by the fingerprints of their certificates, in place of authorities and names.

        As in WebRTC: a certificate with one of the fingerprints is accepted, even one that is self-signed
        or too old, and no other is.  An empty list goes back to authorities; else verify_mode is turned on.

        Args:
            fingerprints: each ``"sha256:HEX"``, ``"sha-256 AB:CD:..."`` as in SDP (also 384 and 512), or the
                hex of a SHA-256 alone.

        Raises:
            ConfigurationError: a fingerprint that is none.
        """
        Pins(fingerprints)
        self._changed()
        self._pinned = tuple(fingerprints)
        self._verifier = None
        self._verify_from_now_on(self._pinned)

    def set_raw_public_keys(self, keys: Sequence[str | bytes]) -> None:
        """Trust peers that show one of these raw public keys in place of a certificate (RFC 7250).

        An unknown raw key is never accepted while peers are verified, which this turns on.  Certificates
        are judged as before.

        Args:
            keys: each a SubjectPublicKeyInfo, PEM or DER.

        Raises:
            ConfigurationError: something that is no public key of a usable kind.
        """
        if isinstance(keys, str | bytes):
            raise ConfigurationError("raw public keys come as a list: pass [key]")
        trusted = tuple(parse_raw_public_key(key) for key in keys)
        self._changed()
        self._raw_keys = trusted
        self._verifier = None
        self._verify_from_now_on(trusted)

    def _verify_from_now_on(self, trusted: Sequence[object]) -> None:
        # To name whom one trusts and not to look would be a trap.
        if trusted and self._verify_mode is CERT_NONE:
            self._verify_mode = CERT_REQUIRED

    def _trust(self, roots: Iterable[bytes]) -> None:
        self._changed()
        self._roots.update(dict.fromkeys(roots))
        self._verifier = None

    # Whether peers must show a certificate, and for which name.

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        """CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED; for a client OPTIONAL means REQUIRED."""
        return self._verify_mode

    @verify_mode.setter
    def verify_mode(self, value: int) -> None:
        mode = ssl.VerifyMode(value)
        if mode is CERT_NONE and self._check_hostname:
            raise ValueError(
                "verify_mode cannot be CERT_NONE while check_hostname is on: set that to False first"
            )
        self._changed()
        self._verify_mode = mode

    @property
    def check_hostname(self) -> bool:
        """Whether the peer's certificate must be for ``server_hostname``.  True turns NONE into REQUIRED."""
        return self._check_hostname

    @check_hostname.setter
    def check_hostname(self, value: bool) -> None:
        self._changed()
        self._check_hostname = bool(value)
        if self._check_hostname and self._verify_mode is CERT_NONE:
            self._verify_mode = CERT_REQUIRED

    @property
    def staple_mode(self) -> StapleMode:
        """Whether peers are asked for an OCSP response with their certificate, and must have one.

        STAPLE_NONE does not ask, which is how servers begin.  STAPLE_OPTIONAL asks, as clients do at first: a
        response that comes must be good, and a certificate that promises one (RFC 7633) must have it.  With
        STAPLE_REQUIRED there is no connection without.  It changes nothing for raw keys, pins, and where
        verify_mode is CERT_NONE.
        """
        return self._staple_mode

    @staple_mode.setter
    def staple_mode(self, value: int) -> None:
        mode = StapleMode(value)
        self._changed()
        self._staple_mode = mode

    @property
    def certificate_timestamps(self) -> bool:
        """Whether peers are asked for signed certificate timestamps (RFC 6962 section 3.3.1).  Off at first.

        What comes is shown by :meth:`get_certificate_timestamps` of a connection, and judged by nobody here
        (docs/certificate-timestamps.md).
        """
        return self._certificate_timestamps

    @certificate_timestamps.setter
    def certificate_timestamps(self, value: bool) -> None:
        self._changed()
        self._certificate_timestamps = bool(value)

    @property
    def allow_legacy_certificates(self) -> bool:
        """Whether peers' certificates may lack what the web demands (docs/certificates.md).  Off at first."""
        return self._allow_legacy

    @allow_legacy_certificates.setter
    def allow_legacy_certificates(self, value: bool) -> None:
        self._changed()
        self._allow_legacy = bool(value)
        self._verifier = None

    def set_certificate_compression(self, names: str | Sequence[str]) -> None:
        """Compress certificates, and accept compressed ones (RFC 8879); off until it is called.

        Args:
            names: of ``"zlib"``, ``"brotli"``, ``"zstd"``, best first; the last two need their packages (the
                extra ``sealwire[compression]``).  An empty list switches it off.

        Raises:
            ConfigurationError: an unknown algorithm, or one whose package is not installed.
        """
        algorithms = parse_compression_algorithms(names)
        self._changed()
        self._compression = algorithms
