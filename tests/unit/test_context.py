"""Context: ssl's verbs and defaults, and the Config it freezes into."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sealwire.context import (
    CERT_NONE,
    CERT_OPTIONAL,
    CERT_REQUIRED,
    PROTOCOL_CLIENT,
    PROTOCOL_SERVER,
    Context,
    create_default_context,
)
from sealwire.crypto.groups import DEFAULT_GROUPS, Group
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.signatures import DEFAULT_SCHEMES, SignatureScheme
from sealwire.crypto.suites import DEFAULT_SUITES, CipherSuite
from sealwire.errors import Alert, ConfigurationError, HandshakeError
from sealwire.limits import Limits
from tests.unit.crypto.authority import Issued, authority, ec_key, issue, rsa_key

ROOT = authority()
ECDSA = issue("ecdsa", ROOT, names=["ecdsa.test", "both.test"])
RSA = issue("rsa", ROOT, key=rsa_key(), names=["rsa.test", "both.test"])
EC_SCHEME = SignatureScheme.ECDSA_SECP256R1_SHA256
RSA_SCHEME = SignatureScheme.RSA_PSS_RSAE_SHA256


def pem(directory: Path, issued: Issued, name: str = "both.pem") -> Path:
    path = directory / name
    path.write_bytes(issued.pem + issued.key_pem())
    return path


def server(directory: Path, *issued: Issued) -> Context:
    context = Context(PROTOCOL_SERVER)
    for one in issued:
        context.load_cert_chain(pem(directory, one))
    return context


class TestDefaults:
    def test_are_those_of_ssl(self) -> None:
        for protocol, theirs in (
            (PROTOCOL_CLIENT, ssl.PROTOCOL_TLS_CLIENT),
            (PROTOCOL_SERVER, ssl.PROTOCOL_TLS_SERVER),
        ):
            ours, reference = Context(protocol), ssl.SSLContext(theirs)
            assert int(ours.protocol) == int(theirs)
            assert ours.verify_mode == reference.verify_mode
            assert ours.check_hostname == reference.check_hostname
            assert ours.keylog_filename == reference.keylog_filename
            assert (ours.sni_callback, reference.sni_callback) == (None, None)
            assert Context(theirs).protocol is protocol
        assert Context().protocol is PROTOCOL_CLIENT

    def test_of_a_client_config(self) -> None:
        config = Context(PROTOCOL_CLIENT).config()
        assert config.suites == DEFAULT_SUITES
        assert config.groups == DEFAULT_GROUPS
        assert config.key_shares is None
        assert config.signature_schemes == DEFAULT_SCHEMES
        assert (config.alpn, config.credentials, config.keylog) == ((), (), None)
        assert (config.verify_mode, config.check_hostname) == (2, True)
        assert config.max_chain_bytes == Limits().certificate_chain_bytes
        assert config.max_chain_length == Limits().certificate_chain_length

    def test_a_group_the_provider_cannot_do_is_not_offered(self) -> None:
        class OldProvider(DeterministicProvider):
            def supports(self, group: Group) -> bool:
                return group is not Group.X25519MLKEM768

        context = Context(provider=OldProvider(1))
        assert context.config().groups == DEFAULT_GROUPS[1:]
        assert context.config().provider.name == "deterministic"
        with pytest.raises(ConfigurationError, match="X25519MLKEM768"):
            context.set_groups("X25519MLKEM768")

    @pytest.mark.parametrize("protocol", [0, 2, ssl.PROTOCOL_TLSv1_2])
    def test_another_protocol_is_refused(self, protocol: int) -> None:
        with pytest.raises(ValueError, match="Protocol"):
            Context(protocol)


class TestVerification:
    def test_check_hostname_and_verify_mode_go_together(self) -> None:
        for context in (Context(PROTOCOL_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
            with pytest.raises(ValueError, match="check_hostname"):
                context.verify_mode = CERT_NONE
            assert context.verify_mode is CERT_REQUIRED
            context.check_hostname = False
            context.verify_mode = CERT_NONE
            assert context.verify_mode is CERT_NONE
            context.check_hostname = True
            assert context.verify_mode is CERT_REQUIRED
            context.verify_mode = CERT_OPTIONAL
            assert context.check_hostname

    def test_verify_mode_takes_ssl_values_and_numbers_only(self) -> None:
        context = Context(PROTOCOL_SERVER)
        context.verify_mode = 1
        assert context.verify_mode is ssl.CERT_OPTIONAL
        with pytest.raises(ValueError, match="VerifyMode"):
            context.verify_mode = 3

    def test_locations(self, tmp_path: Path) -> None:
        other = authority("Other")
        hashed = tmp_path / "hashed"
        hashed.mkdir()
        (hashed / "0123abcd.0").write_bytes(other.pem)
        context = Context()
        context.load_verify_locations(pem(tmp_path, ROOT, "ca.pem"))
        context.load_verify_locations(capath=hashed)
        context.load_verify_locations(cadata=ROOT.pem.decode())
        assert context.get_ca_certs() == [ROOT.der, other.der]

    def test_locations_that_are_none(self, tmp_path: Path) -> None:
        context = Context()
        before = context.config()
        with pytest.raises(TypeError, match="omitted"):
            context.load_verify_locations()
        for arguments in (
            {"cafile": tmp_path / "missing"},
            {"capath": tmp_path / "missing"},
            {"cadata": b"nothing"},
            {"cafile": pem(tmp_path, ROOT), "cadata": "nothing"},
        ):
            with pytest.raises(ConfigurationError):
                context.load_verify_locations(**arguments)
        # A call that fails changes nothing.
        assert context.get_ca_certs() == []
        assert context.config() is before

    def test_default_certs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem(tmp_path, ROOT)))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
        context = Context()
        context.load_default_certs()
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        assert context.get_ca_certs() == [ROOT.der]
        with pytest.raises(TypeError, match="Purpose"):
            context.load_default_certs("server")  # type: ignore[arg-type]

    def test_the_verifier_follows_roots_and_profile_only(self, tmp_path: Path) -> None:
        context = Context()
        first = context.config().verifier
        context.set_alpn_protocols(["a"])
        assert context.config().verifier is first
        context.load_verify_locations(pem(tmp_path, ROOT))
        second = context.config().verifier
        assert second is not first
        assert not context.allow_legacy_certificates
        context.allow_legacy_certificates = True
        assert context.allow_legacy_certificates
        assert context.config().verifier is not second


class TestCredentials:
    def test_a_server_needs_one(self, tmp_path: Path) -> None:
        context = Context(PROTOCOL_SERVER)
        with pytest.raises(ConfigurationError, match="load_cert_chain"):
            context.config()
        context.load_cert_chain(pem(tmp_path, ECDSA))
        assert context.config().credentials[0].chain == (ECDSA.der,)

    def test_replaced_without_a_restart(self, tmp_path: Path) -> None:
        context = server(tmp_path, ECDSA)
        before = context.config()
        renewed = issue("ecdsa", ROOT, key=ec.generate_private_key(ec.SECP384R1()), names=["new.test"])
        context.load_cert_chain(pem(tmp_path, renewed))
        # Connections that exist go on with what they began with.
        assert before.credentials[0].chain == (ECDSA.der,)
        assert [one.chain for one in context.config().credentials] == [(renewed.der,)]

    def test_one_that_fails_to_load_changes_nothing(self, tmp_path: Path) -> None:
        context = server(tmp_path, ECDSA)
        before = context.config()
        with pytest.raises(ConfigurationError, match="missing"):
            context.load_cert_chain(tmp_path / "missing.pem")
        assert context.config() is before

    def test_one_of_each_kind_of_key(self, tmp_path: Path) -> None:
        config = server(tmp_path, ECDSA, RSA).config()
        assert [one.kind for one in config.credentials] == ["ecdsa", "rsa"]

    def test_the_choice_follows_name_and_schemes(self, tmp_path: Path) -> None:
        config = server(tmp_path, ECDSA, RSA).config()
        ecdsa, rsa = config.credentials
        both = (EC_SCHEME, RSA_SCHEME)
        assert config.credential_for("rsa.test", both) is rsa
        assert config.credential_for("ecdsa.test", both) is ecdsa
        assert config.credential_for("both.test", both) is ecdsa
        assert config.credential_for("both.test", (RSA_SCHEME,)) is rsa
        # A name nobody has, or none: whatever can sign.
        assert config.credential_for("other.test", both) is ecdsa
        assert config.credential_for(None, both) is ecdsa
        assert config.credential_for(None, (RSA_SCHEME,)) is rsa
        # Schemes come before names: a certificate the peer cannot verify is of no use to it.
        assert config.credential_for("rsa.test", (EC_SCHEME,)) is ecdsa
        assert config.credential_for("rsa.test", (SignatureScheme.ED25519,)) is None
        assert config.credential_for("rsa.test", ()) is None
        assert Context().config().credential_for(None, both) is None

    def test_passwords_reach_the_loader(self, tmp_path: Path) -> None:
        (tmp_path / "cert.pem").write_bytes(ECDSA.pem)
        (tmp_path / "key.pem").write_bytes(ECDSA.key_pem(b"secret"))
        context = Context()
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem", lambda: "secret")
        assert context.config().credentials[0].chain == (ECDSA.der,)


class TestNegotiation:
    def test_alpn(self) -> None:
        context = Context()
        context.set_alpn_protocols(["telemetry/1", b"\xaa\xaa"])
        assert context.config().alpn == (b"telemetry/1", b"\xaa\xaa")
        context.set_alpn_protocols([])
        assert context.config().alpn == ()

    @pytest.mark.parametrize("names", [[""], ["x" * 256], ["\u00e4"], "http/1.1", b"h2", ["x" * 255] * 256])
    def test_alpn_that_does_not_fit(self, names: list[str]) -> None:
        context = Context()
        with pytest.raises(ConfigurationError, match="ALPN"):
            context.set_alpn_protocols(names)
        assert context.config().alpn == ()

    def test_signature_schemes(self) -> None:
        context = Context()
        context.set_signature_schemes("mldsa65:ecdsa_secp256r1_sha256:rsa_pkcs1_sha256")
        config = context.config()
        assert [scheme.name for scheme in config.signature_schemes] == [
            "MLDSA65",
            "ECDSA_SECP256R1_SHA256",
            "RSA_PKCS1_SHA256",
        ]
        with pytest.raises(ConfigurationError, match="choose from"):
            context.set_signature_schemes(["ecdsa_sha1"])
        assert context.config() is config

    def test_short_tags_are_for_those_who_ask(self) -> None:
        context = Context()
        with pytest.raises(ConfigurationError, match="allow_short_tags=True"):
            context.set_ciphersuites(["TLS_AES_128_CCM_8_SHA256"])
        assert context.config().suites == DEFAULT_SUITES
        context.set_ciphersuites(["TLS_AES_128_CCM_8_SHA256"], allow_short_tags=True)
        assert context.config().suites == (CipherSuite.TLS_AES_128_CCM_8_SHA256,)

    def test_suites_and_groups(self) -> None:
        context = Context()
        context.set_ciphersuites("TLS_CHACHA20_POLY1305_SHA256")
        context.set_groups(["P-256", "x25519"])
        config = context.config()
        assert config.suites == (CipherSuite.TLS_CHACHA20_POLY1305_SHA256,)
        assert config.groups == (Group.SECP256R1, Group.X25519)
        with pytest.raises(ConfigurationError, match="choose from"):
            context.set_ciphersuites("NULL")
        with pytest.raises(ConfigurationError, match="choose from"):
            context.set_groups("P-192")
        assert context.config() is config

    def test_key_shares(self) -> None:
        context = Context()
        context.set_groups("x25519:P-256:P-384")
        context.set_key_shares("P-384:x25519")
        # RFC 8446 section 4.2.8: in the order of supported_groups.
        assert context.config().key_shares == (Group.X25519, Group.SECP384R1)
        context.set_key_shares([])
        assert context.config().key_shares == ()
        context.set_key_shares(None)
        assert context.config().key_shares is None
        context.set_key_shares("X25519MLKEM768")
        with pytest.raises(ConfigurationError, match="X25519MLKEM768 is not among the groups"):
            context.config()


class TestServerNames:
    def test_without_callback_nothing_changes(self, tmp_path: Path) -> None:
        config = server(tmp_path, ECDSA).config()
        assert config.for_server_name("any.test") is config
        assert config.for_server_name(None) is config

    def test_a_callback_chooses(self, tmp_path: Path) -> None:
        default, other = server(tmp_path, ECDSA), server(tmp_path, RSA)
        seen: list[tuple[str | None, Context]] = []

        def choose(name: str | None, context: Context) -> Context | None:
            seen.append((name, context))
            if name == "refused.test":
                raise HandshakeError(Alert.UNRECOGNIZED_NAME, "not here")
            if name == "broken.test":
                raise KeyError(name)
            return {"rsa.test": other, "self.test": default}.get(name or "")

        default.sni_callback = choose
        assert default.sni_callback is choose
        config = default.config()
        assert config.for_server_name("rsa.test") is other.config()
        assert config.for_server_name("self.test") is config
        assert config.for_server_name(None) is config
        assert seen == [("rsa.test", default), ("self.test", default), (None, default)]
        with pytest.raises(HandshakeError) as refused:
            config.for_server_name("refused.test")
        assert refused.value.alert is Alert.UNRECOGNIZED_NAME
        with pytest.raises(HandshakeError) as broken:
            config.for_server_name("broken.test")
        assert broken.value.alert is Alert.INTERNAL_ERROR
        assert isinstance(broken.value.__cause__, KeyError)
        default.sni_callback = None
        assert default.config().for_server_name("rsa.test") is default.config()

    def test_a_chosen_context_that_cannot_serve(self, tmp_path: Path) -> None:
        context = server(tmp_path, ECDSA)
        context.sni_callback = lambda name, context: Context(PROTOCOL_SERVER)
        with pytest.raises(HandshakeError) as caught:
            context.config().for_server_name("x.test")
        assert caught.value.alert is Alert.INTERNAL_ERROR
        assert isinstance(caught.value.__cause__, ConfigurationError)

    def test_it_must_be_callable(self) -> None:
        with pytest.raises(TypeError, match="callable"):
            Context().sni_callback = "name"  # type: ignore[assignment]


class TestKeyLog:
    def test_lines_are_appended_and_the_file_is_private(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.log"
        old_umask = os.umask(0)
        try:
            context = Context()
            context.keylog_filename = path
        finally:
            os.umask(old_umask)
        assert context.keylog_filename == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        keylog = context.config().keylog
        assert keylog is not None
        keylog("LABEL 00 11")
        keylog("LABEL 22 33\n")
        assert path.read_text() == "LABEL 00 11\nLABEL 22 33\n"
        again = Context()
        again.keylog_filename = str(path)
        other = again.config().keylog
        assert other is not None
        other("MORE 44 55")
        assert path.read_text().splitlines()[2:] == ["MORE 44 55"]

    def test_it_outlives_its_context_for_connections_that_use_it(self, tmp_path: Path) -> None:
        context = Context()
        context.keylog_filename = str(tmp_path / "keys.log")
        config = context.config()
        context.keylog_filename = None
        assert context.keylog_filename is None
        assert context.config().keylog is None
        assert config.keylog is not None
        config.keylog("LABEL 00 11")
        assert (tmp_path / "keys.log").read_text() == "LABEL 00 11\n"

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        context = Context()
        for name in (str(tmp_path / "missing" / "keys.log"), str(tmp_path), "nul\0byte"):
            with pytest.raises(ConfigurationError, match="key log"):
                context.keylog_filename = name
        assert context.keylog_filename is None

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="absent: /dev/full")
    def test_a_full_disk_does_not_reach_the_connection(self) -> None:
        context = Context()
        context.keylog_filename = "/dev/full"
        keylog = context.config().keylog
        assert keylog is not None
        keylog("LABEL 00 11")

    def test_descriptors_are_closed(self, tmp_path: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            context = Context()
            context.keylog_filename = str(tmp_path / "keys.log")
        del context
        assert len(os.listdir("/proc/self/fd")) == before


class TestConfig:
    def test_is_the_same_until_a_change(self, tmp_path: Path) -> None:
        context = server(tmp_path, ECDSA)
        context.load_verify_locations(pem(tmp_path, ROOT))
        changes: list[Callable[[], None]] = [
            lambda: context.set_alpn_protocols(["x"]),
            lambda: context.set_groups("x25519"),
            lambda: context.set_ciphersuites("TLS_AES_128_GCM_SHA256"),
            lambda: context.set_key_shares(None),
            lambda: context.load_cert_chain(pem(tmp_path, ECDSA)),
            lambda: context.load_verify_locations(pem(tmp_path, ROOT)),
            lambda: setattr(context, "verify_mode", CERT_REQUIRED),
            lambda: setattr(context, "check_hostname", False),
            lambda: setattr(context, "sni_callback", None),
            lambda: setattr(context, "keylog_filename", None),
            lambda: setattr(context, "allow_legacy_certificates", False),
        ]
        for change in changes:
            config = context.config()
            assert context.config() is config
            change()
            assert context.config() is not config

    def test_is_immutable(self) -> None:
        config = Context().config()
        with pytest.raises(AttributeError):
            config.alpn = ()  # type: ignore[misc]
        assert not hasattr(config, "__dict__")

    def test_prints_no_secret(self, tmp_path: Path) -> None:
        context = server(tmp_path, ECDSA)
        context.keylog_filename = str(tmp_path / "keys.log")
        assert isinstance(ECDSA.key, ec.EllipticCurvePrivateKey)
        secret = ECDSA.key.private_numbers().private_value
        for text in (repr(context), repr(context.config()), str(context.config())):
            assert f"{secret:x}" not in text
            assert str(secret) not in text
            assert "0x" not in text.replace("object at 0x", "")
        assert repr(context) == "<Context server verify_mode=CERT_NONE>"


class TestCreateDefaultContext:
    def test_client(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem(tmp_path, ROOT)))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
        other = authority("Other")
        context = create_default_context()
        assert context.protocol is PROTOCOL_CLIENT
        assert (context.verify_mode, context.check_hostname) == (CERT_REQUIRED, True)
        assert context.get_ca_certs() == [ROOT.der]
        # Given roots replace the system's.
        context = create_default_context(cadata=other.pem)
        assert context.get_ca_certs() == [other.der]
        assert context.keylog_filename is None

    def test_server(self, tmp_path: Path) -> None:
        context = create_default_context(ssl.Purpose.CLIENT_AUTH)
        assert context.protocol is PROTOCOL_SERVER
        assert (context.verify_mode, context.get_ca_certs()) == (CERT_NONE, [])
        context = create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pem(tmp_path, ROOT))
        assert context.get_ca_certs() == [ROOT.der]
        with pytest.raises(TypeError, match="Purpose"):
            create_default_context("server")  # type: ignore[arg-type]

    def test_sslkeylogfile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
        assert create_default_context(cadata=ROOT.pem).keylog_filename == str(tmp_path / "keys.log")
        assert Context().keylog_filename is None


def test_a_context_loads_no_sockets() -> None:
    # Settings must stay usable where drivers are not; wrap_socket imports its driver when called.
    program = "import sys, sealwire.context\nprint('sealwire.drive' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == ["False", "False"]


def test_keys_of_one_kind_replace_each_other_across_curves(tmp_path: Path) -> None:
    context = server(tmp_path, issue("a", ROOT, key=ec_key()), issue("b", ROOT, key=ec_key()))
    assert [one.names for one in context.config().credentials] == [("b",)]
