"""Roots: bundles with bad entries, hashed directories, the system's store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto import trust
from sealwire.errors import ConfigurationError
from tests.unit.crypto.authority import authority

ONE = authority("One")
TWO = authority("Two")
BROKEN = ONE.pem.replace(b"MII", b"AAA", 1)
NOT_BASE64 = b"-----BEGIN CERTIFICATE-----\n@@@@\n-----END CERTIFICATE-----\n"


def test_a_bundle_loses_only_what_is_broken(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(b"# comment\n" + BROKEN + ONE.pem + NOT_BASE64 + b"text\n" + TWO.pem + ONE.pem)
    assert trust.file_roots(bundle) == (ONE.der, TWO.der)


def test_der_one_or_several(tmp_path: Path) -> None:
    (tmp_path / "ca.der").write_bytes(ONE.der)
    assert trust.file_roots(str(tmp_path / "ca.der")) == (ONE.der,)
    assert trust.memory_roots(ONE.der + TWO.der) == (ONE.der, TWO.der)
    assert trust.memory_roots(memoryview(ONE.der + TWO.der + b"trailing")) == (ONE.der, TWO.der)


def test_memory_takes_text_and_bytes() -> None:
    assert trust.memory_roots(ONE.pem.decode()) == (ONE.der,)
    assert trust.memory_roots(bytearray(ONE.pem)) == (ONE.der,)


@pytest.mark.parametrize(
    "data", [b"", b"nothing", "nothing", BROKEN, NOT_BASE64, b"\x30\x82\xff\xff", "\u00e4"]
)
def test_nothing_usable_is_an_error(data: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="cadata"):
        trust.memory_roots(data)


@given(st.binary(max_size=200))
def test_noise_is_an_error(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        trust.memory_roots(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pem", tmp_path, Path("nul\0byte")):
        with pytest.raises(ConfigurationError, match="cannot read CA file"):
            trust.file_roots(path)
    for path in (tmp_path / "missing", Path("nul\0byte")):
        with pytest.raises(ConfigurationError, match="cannot read directory"):
            trust.directory_roots(path)


def test_a_directory_counts_hashed_names_only(tmp_path: Path) -> None:
    (tmp_path / "0123abcd.0").write_bytes(ONE.pem)
    (tmp_path / "0123abcd.1").write_bytes(TWO.pem)
    (tmp_path / "89abcdef.0").symlink_to("missing")
    (tmp_path / "89abcdef.1").write_bytes(BROKEN)
    (tmp_path / "0123abcd.r0").write_bytes(b"a revocation list")
    (tmp_path / "other.pem").write_bytes(authority("Other").pem)
    assert trust.directory_roots(tmp_path) == (ONE.der, TWO.der)


def test_an_empty_directory_is_no_error(tmp_path: Path) -> None:
    assert trust.directory_roots(tmp_path) == ()


def test_the_system_store_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, directory = tmp_path / "ca.pem", tmp_path / "certs"
    directory.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    assert trust.system_roots() == ()
    bundle.write_bytes(ONE.pem + BROKEN)
    first = trust.system_roots()
    assert first == (ONE.der,)
    assert trust.system_roots() is first
    (directory / "0123abcd.0").write_bytes(TWO.pem)
    os.utime(directory, ns=(1, 1))
    assert trust.system_roots() == (ONE.der, TWO.der)
    bundle.write_bytes(b"no certificate any more")
    assert trust.system_roots() == (TWO.der,)
