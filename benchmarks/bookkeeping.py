"""What the ledger costs, in instructions: bulk data and handshakes with bookkeeping and without it.

    python benchmarks/bookkeeping.py              all four, under callgrind (apt-get install valgrind)
    python benchmarks/bookkeeping.py --check      and exit 1 where it is above 2 % (bulk) or 5 % (handshake)

Bookkeeping is what knows who holds how many bytes: every charge and release of an account, its prefixes
and its ledger, pressure, the order in which peers were heard, and the question whether somebody has to
be closed.  `unbooked()` switches all of it off.  Instructions are
counted by callgrind between two points of the program, so neither start-up nor other programs are in
the figures; both ends of a connection are, as both keep accounts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from sealwire import dtls
from sealwire.dtls.peers import Peers
from sealwire.dtls.queues import MessageQueue
from sealwire.dtls.shedding import Shedding
from sealwire.limits import Account, Ledger

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BATCH, MESSAGE_BYTES = 32, 1_100
#: What each may cost, in percent.
PROMISED = {"bulk": 2.0, "handshake": 5.0}
TIMES = {"bulk": 40, "handshake": 8}
HERE = ("192.0.2.1", 4433)


def _yes(self: object, purpose: object, n: int) -> bool:
    return True


def _nothing(self: object, first: object = None, second: object = None) -> None:
    return None


@contextlib.contextmanager
def unbooked() -> Iterator[None]:
    """Inside, nobody is held to account for anything."""
    off: list[tuple[type, str, object]] = [
        (Account, "charge", _yes),
        (Ledger, "charge", _yes),
        (MessageQueue, "_release", _nothing),
        (Shedding, "relieve", _nothing),
    ]
    off += [
        (Account, name, _nothing) for name in ("release", "place", "wind_down", "close", "handshake_over")
    ]
    off += [(Ledger, "release", _nothing), (Peers, "heard", _nothing)]
    with contextlib.ExitStack() as stack:
        for owner, name, instead in off:
            stack.enter_context(mock.patch.object(owner, name, instead))
        yield


class Work:
    """An endpoint and its clients, without a network."""

    def __init__(self) -> None:
        from tests import configs

        server = configs.server_context().config()
        self._client = configs.client_context().config()
        self.endpoint = dtls.Endpoint(lambda: server)

    def connect(self, at: dtls.endpoint.Address = HERE) -> tuple[dtls.Connection, dtls.Connection]:
        client = dtls.Connection.client(self._client, now=0.0, server_name="localhost")
        for _ in range(8):
            self.exchange(client, at)
        assert client.was_connected
        [served] = [one for one in self.endpoint if one.address == at]
        return client, served

    def exchange(self, client: dtls.Connection, at: dtls.endpoint.Address) -> None:
        self.endpoint.receive([(one, at) for one in client.transmit(0.0)], 0.0)
        for datagram, _ in self.endpoint.transmit(0.0):
            client.receive(datagram, 0.0)
        client.events()
        self.endpoint.events()

    def bulk(self, client: dtls.Connection, served: dtls.Connection, times: int) -> None:
        messages = [bytes(MESSAGE_BYTES)] * BATCH
        for _ in range(times):
            client.send_many(messages)
            self.exchange(client, HERE)
            assert len(served.messages()) == BATCH

    def handshakes(self, times: int) -> None:
        for n in range(times):
            client, served = self.connect(("192.0.2.2", 1000 + n))
            client.abort()
            served.abort()
            self.endpoint.transmit(0.0)
            self.endpoint.events()


def count(on: bool) -> None:
    """Tell the callgrind this runs under to count from here, or no longer."""
    word = "on" if on else "off"
    subprocess.run(["callgrind_control", "-i", word, str(os.getpid())], check=True, capture_output=True)


def work(kind: str) -> None:
    """Do it, with instructions counted only while it is done."""
    one = Work()
    if kind == "bulk":
        ends = one.connect()
        one.bulk(*ends, 2)
        count(True)
        one.bulk(*ends, TIMES[kind])
    else:
        one.handshakes(2)
        count(True)
        one.handshakes(TIMES[kind])
    count(False)


def instructions(kind: str, *, booked: bool) -> int:
    """Instructions of one piece of work: a batch, or a handshake with both its ends."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        command += [f"--callgrind-out-file={folder}/out", sys.executable, __file__, "--work", kind]
        command += [] if booked else ["--unbooked"]
        # Sets and dictionaries in the same order each time.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"callgrind did not count: {done.stderr[-800:]}")
    return int(found[1]) // TIMES[kind]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail where more is spent than promised")
    parser.add_argument("--work", choices=PROMISED, help=argparse.SUPPRESS)
    parser.add_argument("--unbooked", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("kinds", nargs="*", help="bulk or handshake; both unless named")
    args = parser.parse_args()
    if args.work:
        with unbooked() if args.unbooked else contextlib.nullcontext():
            work(args.work)
        return
    above = 0
    for kind in args.kinds or PROMISED:
        with_it, without = instructions(kind, booked=True), instructions(kind, booked=False)
        percent = (with_it - without) / without * 100
        above += percent >= PROMISED[kind]
        unit = f"a batch of {BATCH} messages" if kind == "bulk" else "a handshake, both ends"
        print(
            f"{kind}: {with_it:,} instructions for {unit}, {without:,} without bookkeeping: "
            f"{percent:.2f} % (promised: below {PROMISED[kind]:g} %)"
        )
    sys.exit(args.check and above > 0)


if __name__ == "__main__":
    main()
