"""Peers for the tests here: each is found or the test is skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import programs, sockets
from tests.interop.features import shown_by
from tests.interop.programs import Nss, Openssl
from tests.interop.wolfssl import Wolfssl, find_wolfssl


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory talks to software nobody here wrote; its reports say what it showed."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.user_properties += [("shows", "|".join(each)) for each in shown_by(item)]


@pytest.fixture(autouse=True)
def _sockets_closed() -> Iterator[None]:
    yield
    sockets.close_all()


@pytest.fixture
def openssl(tmp_path: Path) -> Openssl:
    """The openssl program."""
    return programs.find_openssl(tmp_path)


@pytest.fixture(params=["", "newer"], ids=["3.0", "3.5"])
def each_openssl(tmp_path: Path, request: pytest.FixtureRequest) -> Openssl:
    """The system's program, and the one install_peers fetches."""
    return (programs.find_newer_openssl if request.param else programs.find_openssl)(tmp_path)


@pytest.fixture
def newer_openssl(tmp_path: Path) -> Openssl:
    """A program that knows raw public keys and compressed certificates."""
    return programs.find_newer_openssl(tmp_path)


@pytest.fixture
def nss(tmp_path: Path) -> Nss:
    """tstclnt, which speaks DTLS 1.3."""
    return programs.find_nss(tmp_path)


@pytest.fixture
def wolfssl(tmp_path: Path) -> Wolfssl:
    """A library that speaks DTLS 1.3, as a program of ours drives it."""
    return find_wolfssl(tmp_path)
