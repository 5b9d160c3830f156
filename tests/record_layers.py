"""The two implementations of the record layer, for tests that ask both the same questions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX, TrafficKeys, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, SuiteSpec
from sealwire.record import reference, stream_reference
from sealwire.record.protect import COMPILED

PROVIDER = default_provider()
SPECS = list(SUITES.values())


@dataclass(frozen=True, slots=True)
class Layer:
    """The classes of one implementation."""

    name: str
    sealer: type[reference.Sealer]
    opener: type[reference.Opener]
    stream_sealer: type[stream_reference.StreamSealer]
    stream_opener: type[stream_reference.StreamOpener]


def _layers() -> list[Layer]:
    layers = [
        Layer(
            "reference",
            reference.Sealer,
            reference.Opener,
            stream_reference.StreamSealer,
            stream_reference.StreamOpener,
        )
    ]
    if COMPILED:
        from sealwire.record import _record, _stream

        layers.append(
            Layer(
                "compiled",
                _record.Sealer,
                _record.Opener,
                _stream.StreamSealer,
                _stream.StreamOpener,
            )
        )
    return layers


LAYERS = _layers()
REFERENCE = LAYERS[0]
COMPILED_LAYER = LAYERS[-1]

each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
each_suite = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
needs_compiled = pytest.mark.skipif(not COMPILED, reason="the compiled record layer is not in use")


def datagram_keys(spec: SuiteSpec, seed: bytes = b"\x5a") -> TrafficKeys:
    """Keys of a DTLS epoch."""
    return traffic_keys(PROVIDER, spec, seed * spec.hash_bytes, DTLS13_PREFIX)


def stream_keys(spec: SuiteSpec, seed: bytes = b"\x5a") -> TrafficKeys:
    """Keys of a TLS epoch."""
    return traffic_keys(PROVIDER, spec, seed * spec.hash_bytes, TLS13_PREFIX)
