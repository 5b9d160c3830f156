"""States in a directory that processes share, and associations that outlive the process that had them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import struct
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest

from sealwire import dtls
from sealwire.crypto.hkdf import DTLS13_PREFIX, next_traffic_secret, traffic_keys
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.drive.states import StateDirectory
from sealwire.dtls.handover import label
from sealwire.errors import ConfigurationError, Error
from sealwire.record import reference
from tests import configs
from tests.unit.dtls.rig import joined

KEY = bytes(range(32))


def test_save_and_claim(tmp_path: Path) -> None:
    states = StateDirectory(tmp_path / "states")
    rig = joined()
    rig.run()
    first, second = (rig.server.checkpoint(KEY, rig.now) for _ in range(2))
    states.save(first)
    states.save(second)
    assert list(states) == [second]
    assert not states.claim(*label(first)), "an older state would use numbers twice"
    assert states.claim(*label(second))
    assert not states.claim(*label(second))
    with pytest.raises(Error, match="another process"):
        states.save(rig.server.checkpoint(KEY, rig.now))
    other = dtls.Connection.from_state(second, KEY, rig.server.config, claim=lambda *_: True, now=rig.now)
    states.save(other.checkpoint(KEY, rig.now))
    states.remove(label(second)[0])
    assert list(states) == []
    assert not states.claim(*label(second))


def test_of_many_processes_one_goes_on(tmp_path: Path) -> None:
    states = StateDirectory(tmp_path / "states")
    rig = joined()
    rig.run()
    state = rig.server.checkpoint(KEY, rig.now)
    states.save(state)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        claimed = pool.starmap(StateDirectory(tmp_path / "states").claim, [label(state)] * 32)
    assert sum(claimed) == 1


def test_others_must_not_read_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        StateDirectory(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot use"):
        StateDirectory(tmp_path / "not" / "there")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        StateDirectory(tmp_path / "file")


# --- two processes and a peer that knows nothing of it ----------------------------------------------


def serve(sock: socket.socket, directory: Path, mode: str, pipe: Pipe) -> None:
    """An echo server.  "begin" goes on until it is killed or told to move; "go on" takes over."""
    states = StateDirectory(directory)
    endpoint = dtls.Endpoint(configs.server_context().config)
    sock.settimeout(0.02)
    if mode == "go on":
        address = pipe.recv()
        for state in states:
            endpoint.adopt(state, KEY, address, claim=states.claim, now=time.monotonic())
    while True:
        now = time.monotonic()
        try:
            data, address = sock.recvfrom(65536)
            endpoint.receive([(data, address)], now)
        except TimeoutError:
            endpoint.wake(now)
        # Moving: what came is in the state.  A checkpoint: before anything is sent.
        if pipe.poll():
            pipe.recv()
            (connection,) = endpoint
            states.save(connection.export_state(KEY, now))
            pipe.send(connection.address)
            return
        for connection in list(endpoint):
            for message in connection.messages():
                connection.send(message)
            fresh = connection.was_connected and mode == "begin" and not connection.held_back
            if connection.state is dtls.State.CONNECTED and (
                connection.held_back or (fresh and not list(states))
            ):
                states.save(connection.checkpoint(KEY, now))
        for datagram, address in endpoint.transmit(now):
            sock.sendto(datagram, address)
        endpoint.events()


_SO_ATTACH_FILTER = 26


def _from(port: int) -> list[tuple[int, int, int, int]]:
    """A classic BPF program that takes UDP from this port, from the IPv4 header on."""
    return [
        (0x30, 0, 0, 9),  # the protocol
        (0x15, 0, 4, 17),
        (0xB1, 0, 0, 0),  # X = the header's length
        (0x48, 0, 0, 0),  # the source port
        (0x15, 0, 1, port),
        (0x06, 0, 0, 65_535),
        (0x06, 0, 0, 0),
    ]


class Capture:
    """What leaves a UDP port on loopback, as the kernel shows it to captures; needs root, else nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.allowed = True
        try:
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        except (AttributeError, PermissionError):
            self.allowed = False
            return
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        # Whatever else is busy on loopback would fill it.
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in _from(port)))
        filter_ = struct.pack("HL", len(_from(port)), ctypes.addressof(program))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
        self._sock.bind(("lo", 0x0800))
        self._sock.setblocking(False)

    def datagrams(self) -> list[bytes]:
        """UDP payloads since the beginning; once."""
        found = []
        while self.allowed:
            try:
                packet = self._sock.recv(65_536)
            except BlockingIOError:
                self._sock.close()
                break
            udp = packet[(packet[0] & 15) * 4 :]
            if packet[9] == 17 and int.from_bytes(udp[:2], "big") == self._port:
                found.append(udp[8:])
        return found


def numbers_used(datagrams: list[bytes], keylog: Path) -> dict[int, list[int]]:
    """Record numbers of application epochs under which the server sealed something, by epoch."""
    words = next(
        line.split() for line in keylog.read_text().splitlines() if "SERVER_TRAFFIC_SECRET_0" in line
    )
    secret, provider = bytes.fromhex(words[2]), default_provider()
    spec = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]
    used: dict[int, list[int]] = {}
    for epoch in (3, 4, 5):
        keys = traffic_keys(provider, spec, secret, DTLS13_PREFIX)
        for datagram in datagrams:
            if datagram[0] & 0xE3 == 0x20 | epoch & 3:
                # One that has seen nothing takes a number for what its 16 bits say.
                opener = reference.Opener(provider, spec, keys, epoch)
                entries, _, _ = opener.open_run([datagram], 0, 0)
                used.setdefault(epoch, []).extend(number for kind, number, _ in entries if kind > 0)
        secret = next_traffic_secret(provider, spec, secret, DTLS13_PREFIX)
    return used


@pytest.mark.parametrize("how", ["moved", "killed"])
def test_another_process_goes_on(tmp_path: Path, how: str) -> None:
    """While a client echoes numbered messages its server moves to, or is restored in, another process."""
    spawn = multiprocessing.get_context("fork")
    configs.server_context()  # certificates are made before the processes part
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    ours, theirs = spawn.Pipe()
    first = spawn.Process(target=serve, args=(server, tmp_path / "states", "begin", theirs), daemon=True)
    first.start()
    second_ours, second_theirs = spawn.Pipe()
    second = None
    capture = Capture(server.getsockname()[1])
    keylog = tmp_path / "keys"
    client = dtls.Connection.client(
        configs.client_context(keylog=keylog, suites=["TLS_AES_128_GCM_SHA256"]).config(),
        now=time.monotonic(),
        server_name="localhost",
    )
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(server.getsockname())
    sock.settimeout(0.02)
    heard: list[bytes] = []
    events: list[dtls.Event] = []
    sent, asked = 0, 0.0
    try:
        end = time.monotonic() + 60
        while len(set(heard)) < 150 and time.monotonic() < end:
            now = time.monotonic()
            # One in flight; sent again when it may be lost, as an application would.
            if client.was_connected and (len(heard) == sent or now > asked + 0.3):
                sent = len(heard) + 1
                client.send(b"%d" % sent)
                asked = now
            for datagram in client.transmit(now):
                sock.send(datagram)
            try:
                client.receive(sock.recv(65536), now)
            except TimeoutError:
                client.wake(now)
            for message in client.messages():
                if message not in heard:
                    heard.append(message)
            events += client.events()
            if len(heard) == 50 and second is None:
                address = sock.getsockname()
                if how == "moved":
                    ours.send("move")
                    address = ours.recv()
                else:
                    os.kill(first.pid or 0, signal.SIGKILL)
                first.join()
                second = spawn.Process(
                    target=serve, args=(server, tmp_path / "states", "go on", second_theirs), daemon=True
                )
                second.start()
                second_ours.send(address)
        assert heard == [b"%d" % n for n in range(1, 151)]
        assert [type(event) for event in events] == [dtls.Connected]
        # A record number used again would authenticate, and be counted as a replay.
        assert client.counters.discards == {}
        assert client.sending_epoch == 4
        # And on the wire: what the dead process sent after its checkpoint is below the reserve it left.
        if capture.allowed:
            used = numbers_used(capture.datagrams(), keylog)
            assert sum(map(len, used.values())) >= 150
            assert len(used) > 1, "the one that took over never changed its keys"
            for numbers in used.values():
                assert len(set(numbers)) == len(numbers)
            if how == "killed":
                # The one that took over began behind the reserve.
                assert max(used[3]) >= 16_384
                assert len([number for number in used[3] if number < 16_384]) >= 50
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.join()
        server.close()
        sock.close()
