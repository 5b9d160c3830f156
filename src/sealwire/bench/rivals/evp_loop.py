"""A bare loop of libcrypto calls in C: what the records cost if nothing but crypto is done.

The loop is benchmarks/evp_loop.c of the source tree, compiled here and now, on the very libcrypto
the record layer uses.  Without a compiler or without the source tree it is "not present".
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sealwire.bench.loops import Loop
from sealwire.bench.measurement import Absent, Bench, Body, Present
from sealwire.crypto.hkdf import DTLS13_PREFIX, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.record import protect
from sealwire.record.bounds import MAX_CONTENT_BYTES

_SOURCE = Path(__file__).resolve().parents[4] / "benchmarks" / "evp_loop.c"
_SPEC = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]
_CALLS = (
    *(f"EVP_{way}{step}" for way in ("Encrypt", "Decrypt") for step in ("Init_ex2", "Update", "Final_ex")),
    "EVP_CIPHER_CTX_set_params",
    "EVP_CIPHER_CTX_get_params",
)


def request(bench: Bench, size: int) -> Body:
    """What a request and its answer cost, as the figure "cpu": both sealed and opened, in full records."""
    count = -(-size // MAX_CONTENT_BYTES)
    loop = _built()
    ways = [_BareLoop(loop, size // count, count, sealing) for sealing in (True, True, False, False)]
    return Loop(bench, _Request(ways), figure="cpu")


class _Request:
    """A Task: runs of records, one after the other, as one unit."""

    units = 1

    def __init__(self, runs: Sequence[_BareLoop]) -> None:
        self._runs = runs

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        for run in self._runs:
            run.work(passes)

    def verify(self) -> None:
        for run in self._runs:
            run.verify()


def presence() -> Present | Absent:
    if not protect.COMPILED:
        return Absent("needs the compiled record layer's libcrypto")
    if _compiler() is None:
        return Absent("needs a C compiler")
    if not _SOURCE.exists():
        return Absent("needs benchmarks/evp_loop.c of the source tree")
    return Present(protect.describe().rpartition("on ")[2].rpartition(", ")[0])


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def open_(bench: Bench, size: int, run: int, sealing: bool) -> Body:
    """Compile, load, and be ready."""
    return Loop(bench, _BareLoop(_built(), size, run, sealing))


def _built() -> ctypes.PyDLL:
    with tempfile.TemporaryDirectory(prefix="sealwire-bench-") as temporary:
        built = os.path.join(temporary, "evp_loop.so")
        compiler = _compiler()
        assert compiler is not None
        command = [compiler, "-O2", "-fPIC", "-shared", "-o", built, str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own source
        return ctypes.PyDLL(built)


class _BareLoop:
    """A Task: what benchmarks/evp_loop.c does with one run."""

    def __init__(self, loop: ctypes.PyDLL, size: int, run: int, sealing: bool) -> None:
        self.units = run
        crypto = ctypes.CDLL(protect.describe().rpartition(", ")[2])
        crypto.EVP_CIPHER_fetch.restype = crypto.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
        keys = traffic_keys(default_provider(), _SPEC, bytes(_SPEC.hash_bytes), DTLS13_PREFIX)

        def context(cipher: bytes, key: bytes, encrypt: bool) -> ctypes.c_void_p:
            made = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
            init = crypto.EVP_EncryptInit_ex2 if encrypt else crypto.EVP_DecryptInit_ex2
            fetched = ctypes.c_void_p(crypto.EVP_CIPHER_fetch(None, cipher, None))
            if init(made, fetched, key, None, None) != 1:
                raise OSError(f"libcrypto refused {cipher.decode()}")
            return made

        addresses = [ctypes.cast(getattr(crypto, name), ctypes.c_void_p).value for name in _CALLS]
        self._table = (ctypes.c_void_p * len(_CALLS))(*addresses)
        self._mask = context(b"AES-128-ECB", keys.sn_key, True)
        self._n = size + 1
        self._text = os.urandom(run * self._n)
        wire = ctypes.create_string_buffer(run * (5 + self._n + 16))
        if not loop.seal_loop(
            self._table, context(b"AES-128-GCM", keys.key, True), self._mask, self._text, self._n, run, wire
        ):
            raise OSError("the bare loop failed to seal")
        self._loop = loop.seal_loop if sealing else loop.open_loop
        self._aead = context(b"AES-128-GCM", keys.key, sealing)
        self._in = self._text if sealing else wire
        self._out = ctypes.create_string_buffer(len(wire))
        self._expected = wire.raw if sealing else self._text
        self._good = 1

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        loop, table, aead, mask = self._loop, self._table, self._aead, self._mask
        for _ in range(passes):
            self._good &= loop(table, aead, mask, self._in, self._n, self.units, self._out)

    def verify(self) -> None:
        if not self._good or self._out.raw[: len(self._expected)] != self._expected:
            raise ValueError("the bare loop's records are wrong")
