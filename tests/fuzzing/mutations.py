"""Systematic damage: every prefix, and every byte replaced in four ways."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def mutations(data: bytes) -> Iterator[bytes]:
    """Every proper prefix of `data`, and `data` with each byte ^0x01, ^0x80, 0x00 and 0xff."""
    for n in range(len(data)):
        yield data[:n]
    for position, value in enumerate(data):
        for other in {value ^ 0x01, value ^ 0x80, 0x00, 0xFF} - {value}:
            yield data[:position] + bytes((other,)) + data[position + 1 :]


def sample(items: Sequence[T], count: int, seed: str) -> list[T]:
    """`count` of `items`, the same ones for the same `seed`; all of them if there are no more."""
    if len(items) <= count:
        return list(items)
    return random.Random(seed).sample(items, count)
