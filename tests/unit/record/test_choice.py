"""Which implementation is used, why, and that the choice cannot be silent or wrong."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealwire.crypto.providers import Aead
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.crypto.suites import SuiteSpec
from sealwire.record import protect, reference, stream
from tests.record_layers import (
    COMPILED_LAYER,
    PROVIDER,
    REFERENCE,
    SPECS,
    datagram_keys,
    needs_compiled,
    stream_keys,
)

SOURCE = Path(reference.__file__).parents[2]
ASK = "from sealwire.record import protect; print(protect.COMPILED, protect.describe())"


def ask(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a fresh interpreter whose environment chooses the implementation."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SEALWIRE_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_twin_on_request() -> None:
    assert ask(ASK, SEALWIRE_PURE="1").stdout == "False plain Python (SEALWIRE_PURE=1)\n"


MISSING = "import sys; sys.modules['sealwire.record._record'] = None\n"


def test_the_twin_for_want_of_anything_else() -> None:
    assert ask(MISSING + ASK).stdout == "False plain Python (the compiled modules are not built)\n"


def test_an_error_where_the_compiled_one_is_required() -> None:
    answer = ask(MISSING + ASK, SEALWIRE_REQUIRE_COMPILED="1")
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last == "ImportError: SEALWIRE_REQUIRE_COMPILED=1, but the compiled modules are not built"


@needs_compiled
def test_a_library_with_wrong_answers_is_refused() -> None:
    spoil = (
        "import sealwire.crypto._evp as e\n"
        "name, (key, nonce, aad, text, sealed), masked = e.KNOWN_ANSWERS[1]\n"
        "e.KNOWN_ANSWERS[1] = (name, (key, nonce, aad, text, sealed[:-1] + b'?'), masked)\n"
    )
    answer = ask(spoil + ASK).stdout
    assert answer.startswith("False plain Python (OpenSSL ")
    assert answer.endswith(" gives wrong answers for AES-256-GCM)\n")
    spoil = spoil.replace("sealed[:-1] + b'?'), masked", "sealed), (masked[0], masked[1], b'??')")
    assert "gives wrong answers for AES-256-GCM" in ask(spoil + ASK).stdout
    required = ask(spoil + ASK, SEALWIRE_REQUIRE_COMPILED="1")
    assert required.returncode == 1
    assert "gives wrong answers" in required.stderr.splitlines()[-1]


@needs_compiled
def test_an_interpreter_without_ssl_still_finds_a_library() -> None:
    hidden = "import sys; sys.modules['_ssl'] = None\n"
    answer = ask(hidden + ASK).stdout
    assert answer.startswith(("True compiled, on OpenSSL ", "False plain Python (no libcrypto"))
    # And where there is none at all, that is the reason given.
    nothing = hidden + "import sealwire.crypto._evp as e; e._LIBRARY_NAMES = ()\n"
    expected = "False plain Python (no libcrypto of OpenSSL 3.0 or newer was found)\n"
    assert ask(nothing + ASK).stdout == expected


@needs_compiled
def test_the_known_answers_are_known_to_others_too() -> None:
    """The table is not what this libcrypto happens to say: the provider's own OpenSSL agrees."""
    from sealwire.crypto import _evp

    assert _evp.nonces_by_parameters(), "OpenSSL 3.0 and newer understand the cheaper way"
    assert _evp.failed_answers() == []
    for spec, (name, (key, nonce, aad, text, sealed), (mask_key, sample, mask)) in zip(
        SPECS, _evp.KNOWN_ANSWERS, strict=True
    ):
        assert name.replace("-", "_").upper() in spec.name
        assert PROVIDER.aead(spec, key).seal(nonce, text, aad) == sealed
        assert PROVIDER.mask(spec, mask_key)(sample)[:2] == mask


@needs_compiled
def test_the_description_says_which_library() -> None:
    assert protect.COMPILED
    assert protect.describe().startswith("compiled, on OpenSSL ")
    assert "libcrypto" in protect.describe().rpartition(", ")[2]


@needs_compiled
def test_a_forgery_leaves_the_interpreter_s_ssl_alone() -> None:
    """Both may share one libcrypto, whose error queue is per thread."""
    import ssl

    opener = COMPILED_LAYER.opener(PROVIDER, SPECS[0], datagram_keys(SPECS[0]), 3)
    assert opener.open_run([b"\x2b" + bytes(50)], 0, 0)[0][0][0] < 0
    incoming = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()


class Counting(OpenSslProvider):
    """A provider with an AEAD of its own."""

    def __init__(self) -> None:
        self.asked = 0

    def aead(self, spec: SuiteSpec, key: bytes) -> Aead:
        self.asked += 1
        return super().aead(spec, key)


def test_a_provider_with_an_aead_of_its_own_is_asked() -> None:
    provider = Counting()
    keys, flat = datagram_keys(SPECS[0]), stream_keys(SPECS[0])
    made = [
        protect.Sealer(provider, SPECS[0], keys, 3),
        protect.Opener(provider, SPECS[0], keys, 3, b"", 64),
        stream.StreamSealer(provider, SPECS[0], flat, 3),
        stream.StreamOpener(provider, SPECS[0], flat, 3),
    ]
    assert provider.asked == 4
    twins = {"sealwire.record.reference", "sealwire.record.stream_reference"}
    assert {type(one).__module__ for one in made} == twins
    assert not protect.uses_compiled(provider)


@needs_compiled
def test_providers_on_openssl_get_the_compiled_one() -> None:
    for provider in (PROVIDER, DeterministicProvider(1)):
        assert protect.uses_compiled(provider)
        keys, flat = datagram_keys(SPECS[0]), stream_keys(SPECS[0])
        made: dict[str, Any] = {
            "_record": protect.Sealer(provider, SPECS[0], keys, 3, b"cid", sequence=5),
            "_stream": stream.StreamOpener(provider, SPECS[0], flat, 3),
        }
        for module, one in made.items():
            assert type(one).__module__ == f"sealwire.record.{module}"


@needs_compiled
@pytest.mark.parametrize("name", ["sealer", "opener", "stream_sealer", "stream_opener"])
def test_the_twin_is_the_interface(name: str) -> None:
    """What the type checker believes about the compiled classes is true."""
    twin, compiled = getattr(REFERENCE, name), getattr(COMPILED_LAYER, name)
    keys = stream_keys(SPECS[0]) if name.startswith("stream") else datagram_keys(SPECS[0])
    one, other = twin(PROVIDER, SPECS[0], keys, 3), compiled(PROVIDER, SPECS[0], keys, 3)
    public = {attribute for attribute in dir(one) if not attribute.startswith("_")}
    assert public == {attribute for attribute in dir(other) if not attribute.startswith("_")}
    for attribute in public:
        value = getattr(one, attribute)
        if inspect.ismethod(value):
            theirs = inspect.signature(getattr(other, attribute))
            mine = inspect.signature(value)
            assert [(p.name, p.kind, p.default) for p in theirs.parameters.values()] == [
                (p.name, p.kind, p.default) for p in mine.parameters.values()
            ]
        else:
            assert getattr(other, attribute) == value
