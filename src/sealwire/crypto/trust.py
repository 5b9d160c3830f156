"""Trusted roots: reading bundles, hashed directories and the system's own store.

A bundle has a hundred certificates and now and then one that no longer decodes: it is skipped, the
others count.  What the system trusts is read once per process and again only when its file or
directory changes, so that a context is cheap to make.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from pathlib import Path

from sealwire.crypto.credentials import PathName
from sealwire.crypto.keys import DECODE_ERRORS, load_root
from sealwire.errors import ConfigurationError

__all__ = ["directory_roots", "file_roots", "memory_roots", "system_roots"]

_CERTIFICATE_BLOCK = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----\s(.*?)-----END (?:X509 )?CERTIFICATE-----", re.DOTALL
)
# The names c_rehash and update-ca-certificates give: a subject's hash, and a counter.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")
# The largest bundles in use are under 1 MiB.
_FILE_MAXIMUM_BYTES = 32 * 1024 * 1024


def memory_roots(data: str | bytes | bytearray | memoryview) -> tuple[bytes, ...]:
    """Certificates (DER) in PEM text, or in bytes that hold PEM or one or more DER certificates.

    Raises:
        ConfigurationError: not one certificate in it can be decoded.
    """
    if isinstance(data, str):
        try:
            data = data.encode("ascii")
        except UnicodeEncodeError:
            raise ConfigurationError("cadata is text but not PEM: pass PEM text, or DER as bytes") from None
    return _usable(bytes(data), "cadata")


def file_roots(name: PathName) -> tuple[bytes, ...]:
    """Certificates (DER) of a PEM or DER file.

    Raises:
        ConfigurationError: it cannot be read, or not one certificate in it can be decoded.
    """
    shown = os.fspath(name)
    return _usable(_read(shown), repr(shown))


def directory_roots(name: PathName) -> tuple[bytes, ...]:
    """Certificates (DER) of the files in a directory that are named by subject hash (openssl rehash).

    Raises:
        ConfigurationError: the directory cannot be read.  An empty one is no error, as in OpenSSL.
    """
    shown = os.fspath(name)
    try:
        entries = sorted(entry.name for entry in os.scandir(shown) if _HASHED_NAME.fullmatch(entry.name))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read directory {shown!r}: {_why(error)}; check the path") from None
    found: dict[bytes, None] = {}
    for entry in entries:
        try:
            found.update(dict.fromkeys(file_roots(Path(shown, entry))))
        except ConfigurationError:
            # A dangling link or a revocation list among the links; the others count.
            continue
    return tuple(found)


# What was read, by what the file system said of it then.
_system: dict[tuple[tuple[str, int, int], ...], tuple[bytes, ...]] = {}


def system_roots() -> tuple[bytes, ...]:
    """Certificates (DER) the system trusts: file and directory of ssl.get_default_verify_paths().

    SSL_CERT_FILE and SSL_CERT_DIR change these as they do for OpenSSL.  Empty where there are none.
    """
    paths = ssl.get_default_verify_paths()
    places: list[tuple[str, int, int]] = []
    for path in (paths.cafile, paths.capath):
        if path is not None:
            try:
                status = os.stat(path)
            except OSError:
                continue
            places.append((path, status.st_mtime_ns, status.st_size))
    key = tuple(places)
    roots = _system.get(key)
    if roots is None:
        found: dict[bytes, None] = {}
        for path, _, _ in places:
            try:
                found.update(
                    dict.fromkeys(directory_roots(path) if os.path.isdir(path) else file_roots(path))
                )
            except ConfigurationError:
                continue
        # One entry: an older state of the same files is of no use to anybody.
        _system.clear()
        roots = _system[key] = tuple(found)
    return roots


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_FILE_MAXIMUM_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read CA file {name!r}: {_why(error)}; check the path") from None
    if len(data) > _FILE_MAXIMUM_BYTES:
        raise ConfigurationError(
            f"CA file {name!r} is longer than {_FILE_MAXIMUM_BYTES} bytes: check the path"
        )
    return data


def _why(error: OSError | ValueError) -> str:
    return (error.strerror or "error") if isinstance(error, OSError) else "this is no file name"


def _usable(data: bytes, where: str) -> tuple[bytes, ...]:
    if b"-----BEGIN " in data:
        candidates = []
        for block in _CERTIFICATE_BLOCK.finditer(data):
            try:
                candidates.append(base64.b64decode(block.group(1)))
            except binascii.Error:
                continue
    else:
        candidates = _split_der(data)
    roots = tuple(dict.fromkeys(der for der in candidates if _decodes(der)))
    if not roots:
        raise ConfigurationError(
            f"no certificate in {where} can be decoded: pass CA certificates in PEM or DER"
        )
    return roots


def _decodes(der: bytes) -> bool:
    try:
        load_root(der).subject.rfc4514_string()
    except DECODE_ERRORS:
        return False
    return True


def _split_der(data: bytes) -> list[bytes]:
    """Certificates laid end to end, cut by their outer lengths alone."""
    result = []
    while len(data) >= 4 and data[0] == 0x30:
        if data[1] < 0x80:
            end = 2 + data[1]
        else:
            size = data[1] & 0x7F
            end = 2 + size + int.from_bytes(data[2 : 2 + size], "big")
        result.append(data[:end])
        data = data[end:]
    return result
