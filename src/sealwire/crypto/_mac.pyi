"""Types of the compiled HMAC; see _mac.pyx."""

from typing import TypeVar

KNOWN_ANSWERS: dict[str, str]

T = TypeVar("T")

def load() -> None: ...
def digest(hash_name: str, key: bytes, data: bytes) -> bytes: ...
def expand(hash_name: str, key: bytes, infos: tuple[tuple[bytes, int], ...], kind: type[T]) -> list[T]: ...
