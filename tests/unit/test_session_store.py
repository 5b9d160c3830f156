"""The client's store: bounded, each ticket once, and files that are private, whole and ours."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire import SessionStore
from sealwire.context.sessions import Place
from sealwire.errors import ConfigurationError

HOME = Place("DTLS 1.3", "host", 4433, "host")
NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Ticket:
    """What a store sees of one."""

    content: bytes
    expires_at: float = NOW + 100

    def encode(self) -> bytes:
        return self.content


@pytest.mark.requirement("8446-PSK-6")
def test_a_ticket_is_given_once_and_the_newest_first() -> None:
    store = SessionStore()
    for content in (b"first", b"second"):
        assert store.put(HOME, Ticket(content))
    assert [store.take(HOME, NOW) for _ in range(3)] == [b"second", b"first", None]
    assert len(store) == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(HOME, protocol="TLS 1.3"),
        replace(HOME, host="other"),
        replace(HOME, port=4434),
        replace(HOME, server_name="other"),
        replace(HOME, identity="ab"),
    ],
    ids=["protocol", "host", "port", "name", "identity"],
)
def test_a_ticket_is_for_its_place_alone(other: Place) -> None:
    store = SessionStore()
    store.put(HOME, Ticket(b"ticket"))
    assert store.take(other, NOW) is None
    assert store.take(HOME, NOW) == b"ticket"


def test_what_has_expired_is_not_given() -> None:
    store = SessionStore()
    store.put(HOME, Ticket(b"good"))
    store.put(HOME, Ticket(b"old", NOW))
    assert store.take(HOME, NOW) == b"good"
    assert store.take(HOME, NOW) is None


def test_bounds() -> None:
    store = SessionStore(3, per_place=2)
    for n in range(5):
        for content in (b"a", b"b", b"c"):
            store.put(replace(HOME, port=n), Ticket(content))
    assert len(store) == 6
    assert [store.take(replace(HOME, port=n), NOW) for n in range(5)] == [None, None, b"c", b"c", b"c"]
    assert not store.put(HOME, Ticket(bytes(64 * 1024 + 1)))
    store.clear()
    assert len(store) == 0
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="room for at least one"):
            SessionStore(bad[0], per_place=bad[1])


def test_use_keeps_a_place() -> None:
    store = SessionStore(2)
    store.put(HOME, Ticket(b"1"))
    store.put(replace(HOME, port=1), Ticket(b"2"))
    store.put(HOME, Ticket(b"3"))
    store.put(replace(HOME, port=2), Ticket(b"4"))
    assert store.take(replace(HOME, port=1), NOW) is None
    assert store.take(HOME, NOW) == b"3"


@pytest.mark.requirement("8446-PSK-6")
def test_threads_never_get_the_same_ticket() -> None:
    store = SessionStore(per_place=2_000)
    for n in range(2_000):
        store.put(HOME, Ticket(b"%d" % n))
    taken: list[list[bytes]] = [[] for _ in range(4)]

    def work(mine: list[bytes]) -> None:
        while (ticket := store.take(HOME, NOW)) is not None:
            mine.append(ticket)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [ticket for mine in taken for ticket in mine]
    assert len(everything) == len(set(everything)) == 2_000


places = st.builds(
    Place,
    st.sampled_from(["DTLS 1.3", "TLS 1.3"]),
    st.text(max_size=8),
    st.integers(0, 65535),
    st.text(max_size=8),
    st.text("0123456789abcdef", max_size=8),
)


@given(st.lists(st.tuples(places, st.binary(max_size=20)), max_size=8))
def test_a_saved_store_comes_back(entries: list[tuple[Place, bytes]]) -> None:
    import tempfile  # a fixture would be shared by all examples

    store = SessionStore(per_place=8)
    for place, content in entries:
        store.put(place, Ticket(content))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sessions"
        store.save(path)
        again = SessionStore.load(path, per_place=8)
        assert os.listdir(directory) == ["sessions"]
    assert len(again) == len(store)
    for place, _ in entries:
        assert again.take(place, NOW) == store.take(place, NOW)


def saved(tmp_path: Path) -> Path:
    store = SessionStore()
    store.put(HOME, Ticket(b"secret"))
    path = tmp_path / "sessions"
    store.save(path)
    return path


def test_a_saved_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = saved(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # One that was open before is replaced, not written into.
    path.chmod(0o644)
    inode = path.stat().st_ino
    assert stat.S_IMODE(saved(tmp_path).stat().st_mode) == 0o600
    assert path.stat().st_ino != inode


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_file_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = saved(tmp_path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may read or change it"):
        SessionStore.load(path)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        SessionStore.load(path)
    words = str(refused.value)
    assert str(path) in words
    assert "\n" not in words
    return words


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for content in (b"", b"\xff", b"{}", b"[]", b"-----BEGIN SSL SESSION PARAMETERS-----", b"[" * 100_000):
        path.write_bytes(content)
        assert "is no session file" in refusal(path)
    assert "no such file" in refusal(tmp_path / "absent")
    assert "regular file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "regular file" in refusal(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        SessionStore().save(tmp_path / "absent" / "file")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        SessionStore.load("nul\0byte")


def test_another_version_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    document = json.loads(path.read_bytes())
    document["version"] = 2
    path.write_text(json.dumps(document))
    assert "version 2" in refusal(path)


def damage(document: dict[str, Any], n: int) -> None:
    entry = document["tickets"][0]
    changes: list[tuple[dict[str, Any], str, Any]] = [
        (entry, "ticket", "c2VjcmV1"),
        (entry, "expires_at", 0),
        (entry, "host", "other"),
        (entry, "port", None),
        (document, "tickets", [1]),
        (document, "tickets", None),
        (document, "digest", None),
    ]
    where, key, value = changes[n]
    where[key] = value


@pytest.mark.parametrize("n", range(7))
def test_a_damaged_file_is_refused(tmp_path: Path, n: int) -> None:
    path = saved(tmp_path)
    document = json.loads(path.read_bytes())
    damage(document, n)
    path.write_text(json.dumps(document))
    assert "is damaged" in refusal(path)


def test_right_digest_of_wrong_things(tmp_path: Path) -> None:
    """Who computes the digest can write nonsense, which is refused all the same."""
    from sealwire.context.sessions import _digest

    path = saved(tmp_path)
    good = json.loads(path.read_bytes())["tickets"][0]
    for key, value in (("ticket", "*"), ("ticket", 1), ("port", "x"), ("expires_at", "soon"), ("host", ...)):
        entry = {name: item for name, item in good.items() if value is not ... or name != key}
        if value is not ...:
            entry[key] = value
        document = {
            "format": "sealwire sessions",
            "version": 1,
            "digest": _digest([entry]),
            "tickets": [entry],
        }
        path.write_text(json.dumps(document))
        assert "is damaged" in refusal(path)
