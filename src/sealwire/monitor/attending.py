"""A small server on the event loop of what it watches: a few clients at once, all cut off at its end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self

_CONNECTIONS: Final = 16


class Attending(ABC):
    """Attends to clients of one `asyncio.Server`; usable as an asynchronous context manager."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it has no more to ask."""

    def _admits(self, writer: asyncio.StreamWriter) -> bool:
        """Whether to talk to whoever this is."""
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= _CONNECTIONS or not self._admits(writer):
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._attend(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # gone, no request, too long a one, or silent for too long (TimeoutError is an OSError)
        finally:
            self._open.discard(task)
            writer.close()

    async def aclose(self) -> None:
        """Stop, and cut off who is being answered."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        if self._server is not None:
            await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
