"""`bench record`: sealing and opening DTLS 1.3 records in memory, as many a call as one GSO send takes.

Beside it: a bare loop of libcrypto calls in C, DTLS 1.2 of pyOpenSSL and TLS 1.3 of Python's ssl,
all with AES-128-GCM.  The bare loop is also what the crypto costs alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from sealwire.bench.loops import Loop
from sealwire.bench.measurement import (
    Absent,
    Bench,
    Body,
    Contender,
    Figure,
    Kind,
    Measurement,
    Present,
    Promise,
    Role,
    here,
)
from sealwire.bench.rivals import evp_loop, openssl_memory, programs
from sealwire.crypto.hkdf import DTLS13_PREFIX, TrafficKeys, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.record import protect, reference

SIZES = (64, 256, 1200, 1400, 16384)
# What a receiver works on was just written and fits its cache.
_OPENED_BYTES = 1 << 19
_MOST_RUNS = 8
_EPOCH = 3
_APPLICATION_DATA = 23
_SPEC = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]

_PROMISED = Promise(100.0, "record processing below 100 us")


def run_of(size: int) -> int:
    """Records of one call: what one GSO send takes, 64 segments and 65,507 bytes in all."""
    return max(1, min(64, 65_507 // (size + 22)))


class Sealing:
    """A Task: seal runs of records; verified by opening the last run with the plain-Python opener."""

    def __init__(self, bench: Bench, size: int) -> None:
        self.units = run_of(size)
        self._keys = keys()
        self._messages = messages(size)
        self._sealer = bench.crypto.sealer(_SPEC, self._keys, _EPOCH)
        self._last: Sequence[bytes] = ()

    @property
    def wire_bytes(self) -> int:
        """The length of the last record."""
        return len(self._last[-1])

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        for _ in range(passes):
            self._last = self._sealer.seal_run(_APPLICATION_DATA, self._messages)

    def verify(self) -> None:
        before = self._sealer.sequence - self.units - 1
        opener = reference.Opener(default_provider(), _SPEC, self._keys, _EPOCH, highest=before)
        entries, _, _ = opener.open_run(self._last, 0, 0)
        if [content for _, _, content in entries] != self._messages:
            raise ValueError("what was sealed does not open")


class Opening:
    """A Task: open runs of records, each pass with an opener that has not seen them."""

    def __init__(self, bench: Bench, size: int) -> None:
        self._crypto = bench.crypto
        self._keys = keys()
        self._messages = messages(size)
        # Sealed by the twin: an opener that skips its crypto does not get by with it.  What has no
        # crypto at all gets records without any, of which every step but that can be done.
        sealer = (
            reference.Sealer(default_provider(), _SPEC, self._keys, _EPOCH)
            if bench.crypto.on
            else bench.crypto.sealer(_SPEC, self._keys, _EPOCH)
        )
        runs = max(1, min(_MOST_RUNS, _OPENED_BYTES // (run_of(size) * size)))
        self._runs = [sealer.seal_run(_APPLICATION_DATA, self._messages) for _ in range(runs)]
        self.units = runs * run_of(size)
        self._openers: list[reference.Opener] = []
        self._last: Sequence[reference.Entry] = ()

    def prepare(self, passes: int) -> None:
        self._openers = [self._crypto.opener(_SPEC, self._keys, _EPOCH) for _ in range(passes)]

    def work(self, passes: int) -> None:
        for opener in self._openers:
            for run in self._runs:
                self._last, _, _ = opener.open_run(run, 0, 0)

    def verify(self) -> None:
        if [content for _, _, content in self._last] != self._messages:
            raise ValueError("what was opened is not what was sealed")
        if any(opener.opened != self.units for opener in self._openers):
            raise ValueError("records did not open")


def keys() -> TrafficKeys:
    """Keys that are the same in every process."""
    return traffic_keys(default_provider(), _SPEC, bytes(_SPEC.hash_bytes), DTLS13_PREFIX)


def messages(size: int) -> list[bytes]:
    """One run's contents, all different."""
    return [os.urandom(size) for _ in range(run_of(size))]


def _sealing(size: int) -> Callable[[Bench], Body]:
    def open_(bench: Bench) -> Body:
        task = Sealing(bench, size)
        return Loop(bench, task, lambda: {"wire": float(task.wire_bytes)})

    return open_


def _opening(size: int) -> Callable[[Bench], Body]:
    return lambda bench: Loop(bench, Opening(bench, size))


class ProviderSealing:
    """What the crypto of the plain-Python sealer costs alone: AEAD and mask, called directly."""

    def __init__(self, size: int, sealing: bool) -> None:
        self.units = run_of(size)
        provider, secrets = default_provider(), keys()
        self._aead = provider.aead(_SPEC, secrets.key)
        self._mask = provider.mask(_SPEC, secrets.sn_key)
        self._sealing = sealing
        nonce, header = bytes(12), bytes(5)
        self._nonce, self._header = nonce, header
        plain = [message + b"\x17" for message in messages(size)]
        self._data = plain if sealing else [self._aead.seal(nonce, one, header) for one in plain]

    def prepare(self, passes: int) -> None:
        pass

    def work(self, passes: int) -> None:
        mask, nonce, header = self._mask, self._nonce, self._header
        for _ in range(passes):
            if self._sealing:
                seal = self._aead.seal
                for one in self._data:
                    mask(seal(nonce, one, header)[:16])
            else:
                open_ = self._aead.open
                for one in self._data:
                    mask(one[:16])
                    open_(nonce, one, header)

    def verify(self) -> None:
        pass


def crypto_alone(bench: Bench, size: int, sealing: bool) -> Body:
    """A Body of what the crypto costs alone, in the way the record layer in use calls it."""
    if protect.COMPILED:
        return evp_loop.open_(bench, size, run_of(size), sealing)
    return Loop(bench, ProviderSealing(size, sealing))


def crypto_alone_presence() -> Present | Absent:
    """Whether that can be measured here."""
    return evp_loop.presence() if protect.COMPILED else here()


def _alone(size: int, sealing: bool) -> Contender:
    name = "bare EVP loop in C" if protect.COMPILED else "AEAD and mask alone"
    return Contender(
        name,
        Role.CRYPTO_ALONE,
        lambda bench: crypto_alone(bench, size, sealing),
        presence=crypto_alone_presence,
    )


def _row(size: int, sealing: bool) -> Measurement:
    verb = "seal" if sealing else "open"
    open_ = _sealing(size) if sealing else _opening(size)
    figures = [Figure("", "us", Kind.TIME, "CPU per record", _PROMISED)]
    if sealing:
        promised = Promise(1428.0, "bandwidth overhead below 2 %") if size == 1400 else None
        figures.append(Figure("wire", "B", Kind.MEMORY, "bytes on the wire", promised))
    return Measurement(
        f"record.{verb}.{size}",
        f"{verb} a record of {size:,} B",
        tuple(figures),
        (
            Contender("sealwire", Role.OURS, open_),
            Contender("sealwire without crypto", Role.WITHOUT_CRYPTO, open_),
            _alone(size, sealing),
            openssl_memory.dtls12_records(size, run_of(size), sealing),
            openssl_memory.ssl_records(size, run_of(size), sealing),
            *programs.record_contenders(size, sealing),
        ),
    )


ROWS = tuple(_row(size, sealing) for sealing in (True, False) for size in SIZES)
