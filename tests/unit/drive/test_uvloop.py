"""The asyncio faces on uvloop: the same tests, with its loops."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.unit.drive import harness, test_aio_datagrams, test_aio_streams, test_messages, test_stream_faces

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed (extra `uvloop`)")

# What they measure is time, and once is enough.
OF_ASYNCIO_ALONE = {"test_a_refused_port_ends_the_wait_early_but_not_at_once"}


def loop_tests(module: ModuleType) -> Iterator[Any]:
    """The tests of a module that run a loop and need no fixture."""
    for name, test in inspect.getmembers(module, inspect.isfunction):
        marks = {mark.name for mark in getattr(test, "pytestmark", ())}
        if (
            name.startswith("test_")
            and test.__module__ == module.__name__
            and not inspect.signature(test).parameters
            and "run(main" in inspect.getsource(test)
            and name not in OF_ASYNCIO_ALONE
            and not marks & {"long", "skipif"}
        ):
            yield pytest.param(test, id=f"{module.__name__.rpartition('.')[2]}-{name}")


@pytest.fixture(autouse=True)
def on_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "loop_factory", uvloop.new_event_loop)
    # libuv opens a pipe with a process's first loop and keeps it.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.mark.parametrize(
    "test",
    [
        each
        for module in (test_aio_streams, test_messages, test_stream_faces, test_aio_datagrams)
        for each in loop_tests(module)
    ],
)
def test_on_uvloop(test: Callable[[], None]) -> None:
    test()


def test_there_are_as_many_as_there_should_be() -> None:
    assert sum(1 for _ in loop_tests(test_aio_streams)) > 20
    assert sum(1 for _ in loop_tests(test_messages)) > 10
