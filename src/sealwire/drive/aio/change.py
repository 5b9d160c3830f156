"""Waiting for something to change, again and again: an asyncio.Event that is a tenth of its size.

There is one for each peer of a server, and most wait for years.
"""

from __future__ import annotations

import asyncio


class Change:
    """What was waited for before :meth:`happened` is over; who waits behind it waits for the next."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return once something has happened from now on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except BaseException:
            # Cancelled: nobody is there to be told.
            if future in self._waiting:
                self._waiting.remove(future)
            raise

    def happened(self) -> None:
        """Let all go who wait now."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
