"""Backends by name and protocol."""

from __future__ import annotations

import pytest

from sealwire.errors import Alert
from sealwire.proxy import NoRoute, Routes, Target

A, B, C, D = (Target("127.0.0.1", n) for n in range(1, 5))


def test_the_most_particular_route_is_chosen() -> None:
    routes = Routes(D, {"a.example.org": A, "*.example.org": B}, {b"h2": C})
    assert routes.choose("a.example.org", None) is A
    assert routes.choose("A.Example.ORG.", b"http/1.1") is A
    assert routes.choose("b.example.org", None) is B
    assert routes.choose("a.example.org", b"h2") is C
    # A wildcard is for one label, as in certificates.
    for name in ("a.b.example.org", "example.org", "", None, "org", "*"):
        assert routes.choose(name, None) is D
    assert routes.targets() == {A, B, C, D}


@pytest.mark.parametrize("name", [None, "", "b.example.org", "a.example.org.evil", "example.org"])
def test_an_unknown_name_has_its_alert(name: str | None) -> None:
    routes = Routes(None, {"a.example.org": A})
    for ask in (lambda: routes.choose(name, None), lambda: routes.check_name(name)):
        with pytest.raises(NoRoute) as caught:
            ask()
        assert caught.value.alert is Alert.UNRECOGNIZED_NAME
    routes.check_name("a.example.org")
    assert routes.targets() == {A}


def test_an_unknown_protocol_has_its_alert() -> None:
    routes = Routes(None, {}, {b"h2": C})
    routes.check_name(None)  # the protocol may still find one
    for protocol in (None, b"http/1.1"):
        with pytest.raises(NoRoute) as caught:
            routes.choose("x", protocol)
        assert caught.value.alert is Alert.NO_APPLICATION_PROTOCOL
    with pytest.raises(NoRoute) as caught:
        Routes(None, {"a": A}, {b"h2": C}).choose("b", b"x")
    assert caught.value.alert is Alert.UNRECOGNIZED_NAME


@pytest.mark.parametrize(
    ("target", "words", "local"),
    [
        (Target("localhost", 80), "localhost:80", True),
        (Target("LocalHost", 80), "LocalHost:80", True),
        (Target("127.9.9.9", 80), "127.9.9.9:80", True),
        (Target("::1", 80), "[::1]:80", True),
        (Target(path="/run/x"), "unix:/run/x", True),
        (Target("127.evil.example", 80), "127.evil.example:80", False),
        (Target("127.0.0.1.example", 80), "127.0.0.1.example:80", False),
        (Target("192.0.2.1", 80), "192.0.2.1:80", False),
        (Target("", 80), ":80", False),
        (Target("::", 80), "[::]:80", False),
    ],
)
def test_targets(target: Target, words: str, local: bool) -> None:
    assert (str(target), target.local) == (words, local)
