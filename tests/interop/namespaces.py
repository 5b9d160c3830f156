"""Two network namespaces joined by a veth pair, made for a test and gone after it."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Pair:
    """Names of the namespaces; "left" in one and "right" in the other are the ends of the cable."""

    left: str
    right: str

    def run(self, side: str, *command: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.command(side, *command), capture_output=True, check=True, timeout=60)

    def command(self, side: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", getattr(self, side), *command]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@contextmanager
def pair() -> Iterator[Pair]:
    """Skips where namespaces may not be made."""
    tag = uuid.uuid4().hex[:6]
    made = Pair(f"sw-l-{tag}", f"sw-r-{tag}")
    if os.geteuid() != 0:
        pytest.skip("absent: permission to make network namespaces (root)")
    try:
        _ip("netns", "add", made.left)
        _ip("netns", "add", made.right)
        _ip(
            "-n",
            made.left,
            "link",
            "add",
            "left",
            "type",
            "veth",
            "peer",
            "name",
            "right",
            "netns",
            made.right,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(made)
        reason = (
            error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        )
        pytest.skip(f"absent: permission to make network namespaces ({reason})")
    try:
        for side, address in (("left", "192.0.2.1/24"), ("right", "192.0.2.2/24")):
            name = getattr(made, side)
            # No neighbour discovery of its own accord: every packet is one the test sent.
            for switch in ("all", "default", side):
                path = f"net.ipv6.conf.{switch}.disable_ipv6=1"
                subprocess.run(made.command(side, "sysctl", "-qw", path), check=False, capture_output=True)
            _ip("-n", name, "addr", "add", address, "dev", side)
            _ip("-n", name, "link", "set", side, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        _remove(made)


@contextmanager
def narrow_behind_a_router(mtu: int) -> Iterator[tuple[Pair, list[str]]]:
    """The right namespace forwards to a third, 198.51.100.2, over a cable of `mtu` bytes.

    Gives the pair, and what runs a command in the third namespace.
    """
    with pair() as made:
        beyond = made.right.replace("sw-r-", "sw-b-")
        try:
            _ip("netns", "add", beyond)
            near = ("link", "add", "near", "type", "veth", "peer", "name", "beyond", "netns", beyond)
            _ip("-n", made.right, *near)
            for name, end, address in (
                (made.right, "near", "198.51.100.1/24"),
                (beyond, "beyond", "198.51.100.2/24"),
            ):
                _ip("-n", name, "link", "set", end, "mtu", str(mtu))
                _ip("-n", name, "addr", "add", address, "dev", end)
                _ip("-n", name, "link", "set", end, "up")
            _ip("-n", beyond, "route", "add", "default", "via", "198.51.100.1")
            _ip("-n", made.left, "route", "add", "default", "via", "192.0.2.2")
            made.run("right", "sysctl", "-qw", "net.ipv4.ip_forward=1")
            yield made, ["ip", "netns", "exec", beyond]
        finally:
            subprocess.run(["ip", "netns", "del", beyond], check=False, capture_output=True)


def _remove(made: Pair) -> None:
    for name in (made.left, made.right):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
