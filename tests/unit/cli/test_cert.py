"""`sealwire cert`: the certificates satisfy a strict verifier, the keys stay private."""

from __future__ import annotations

import datetime
import ipaddress
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from sealwire.cli import main

FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize(
    ("key_type", "key_class"),
    [
        ("ec", ec.EllipticCurvePrivateKey),
        ("rsa", rsa.RSAPrivateKey),
        ("ed25519", ed25519.Ed25519PrivateKey),
    ],
)
def test_keys_match_and_are_for_their_owner_alone(tmp_path: Path, key_type: str, key_class: type) -> None:
    assert main(["cert", "--dir", str(tmp_path), "--key-type", key_type]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for role in ("ca", "server", "client"):
        key_file = tmp_path / f"{role}.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, key_class if role != "ca" else ec.EllipticCurvePrivateKey)
        assert key.public_key() == load(tmp_path / f"{role}.pem").public_key()


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
def test_a_strict_verifier_accepts_each_for_its_role_only(tmp_path: Path, key_type: str) -> None:
    assert main(["cert", "--dir", str(tmp_path), "--key-type", key_type]) == 0
    store = Store([load(tmp_path / "ca.pem")])
    server, client = load(tmp_path / "server.pem"), load(tmp_path / "client.pem")
    for subject in (
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ):
        verifier = PolicyBuilder().store(store).build_server_verifier(subject)
        assert verifier.verify(server, []) == [server, load(tmp_path / "ca.pem")]
        with pytest.raises(VerificationError):
            verifier.verify(client, [])
    client_verifier = PolicyBuilder().store(store).build_client_verifier()
    assert client_verifier.verify(client, []).subjects == [x509.DNSName("client")]
    with pytest.raises(VerificationError):
        client_verifier.verify(server, [])
    with pytest.raises(VerificationError):
        PolicyBuilder().store(store).build_server_verifier(x509.DNSName("other.example")).verify(server, [])


def test_names_addresses_and_days_are_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--json", "cert", "--dir", str(tmp_path / "new"), "--days", "3"]
    assert (
        main([*arguments, "--name", "a.example", "b.example", "--name", "c.example", "--ip", "192.0.2.7"])
        == 0
    )
    certificate = load(tmp_path / "new" / "server.pem")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "b.example", "c.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.7")]
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=2, hours=23) < left <= datetime.timedelta(days=3)
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(o["event"], o["role"]) for o in objects] == [
        ("certificate", "ca"),
        ("certificate", "server"),
        ("certificate", "client"),
    ]
    assert objects[1]["names"] == ["a.example", "b.example", "c.example", "192.0.2.7"]


def test_existing_files_are_replaced_only_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server.key").write_text("precious")
    assert main(["cert", "--dir", str(tmp_path)]) == 3
    message = capsys.readouterr().err
    assert message.startswith("sealwire: server.key already exist")
    assert "--force" in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["server.key"]
    assert (tmp_path / "server.key").read_text() == "precious"
    assert main(["cert", "--dir", str(tmp_path), "--force"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600


def test_no_key_is_ever_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["cert", "--json"], ["cert"]):
        assert main([*arguments, "--force", "--dir", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    body = (tmp_path / "server.key").read_text().splitlines()[1]
    assert body not in printed.out + printed.err
    assert "PRIVATE" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--ip", "300.1.1.1"], 2, "'300.1.1.1' is no IP address"),
        (["--days", "0"], 2, "'0' is not a number of days"),
        (["--key-type", "dsa"], 2, "invalid choice: 'dsa'"),
        (["--name", "bücher.example"], 2, "check --name"),
        (["--dir", "/proc/nowhere"], 3, "choose another directory with --dir"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cert", *arguments]) == code
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
