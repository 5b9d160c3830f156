"""The engine in the middle of a handshake, and both transports with everything behind them."""

from __future__ import annotations

from typing import Final

from sealwire import dtls, stcp
from sealwire.dtls.cookie import CookieJar
from sealwire.dtls.header import (
    fragment_header,
)
from sealwire.errors import Error, ProtocolError
from sealwire.limits import Ledger, Limits
from sealwire.stcp.deframe import Deframer, MessageJoiner
from sealwire.tls13.flavor import DTLS, TLS
from sealwire.tls13.messages import HandshakeType, frame
from tests.fuzzing.recordings import Conversation
from tests.fuzzing.targets.pairs import all_recordings, early_config
from tests.fuzzing.targets.promise import Script, Target, ended_well, known
from tests.network.world import address
from tests.record_layers import PROVIDER


def _engine(flavor_bit: bool) -> Target:
    flavor = DTLS if flavor_bit else TLS

    def target(data: bytes) -> None:
        script = Script(data)
        conversation = Conversation(all_recordings()[script.byte(len(all_recordings()))], flavor)
        for _ in range(script.byte(16)):
            if not conversation.waiting:
                break
            conversation.step()
        try:
            for _ in range(8):
                if script.over:
                    break
                client_side = script.byte(2) == 0
                if conversation.waiting and script.byte(4):
                    delivery = conversation.waiting.popleft()
                    receiver = conversation.receiver(delivery)
                    message, epoch = script.damaged(delivery.message), delivery.epoch
                else:
                    # Anything at all, where the engine is now; often with a type that exists.
                    receiver = conversation.client if client_side else conversation.server
                    kind, epoch = script.byte(), receiver.receive_epoch
                    message = frame(HandshakeType(kind), script.piece())
                receiver.receive(epoch, message)
                conversation.collect()
            conversation.run()
        except ProtocolError as error:
            known(error)
            for engine in (conversation.client, conversation.server):
                engine.outputs()

    return target


HANDSHAKE: Final[tuple[Target, ...]] = (_engine(False), _engine(True))


def _endpoint(data: bytes) -> None:
    """A client and an endpoint, and a network that does what the script says."""
    script = Script(data)
    options = script.byte()
    server, config = early_config()
    limits = Limits(hello_slots=16, connections=8, handshakes=4)
    endpoint = dtls.Endpoint(
        lambda: server, limits=limits, require_cookie=bool(options & 1), cid_bytes=8 if options & 2 else None
    )
    at_rest = endpoint.ledger.held
    ledger = Ledger(limits)
    client = dtls.Connection.client(
        config,
        now=0.0,
        server_name="localhost",
        limits=limits,
        ledger=ledger,
        connection_id=b"me" if options & 4 else b"",
    )
    now, here = 0.0, address(0)
    up: list[bytes] = []
    down: list[bytes] = []
    seen: list[bytes] = []
    received = sent = 0
    for _ in range(60):
        up += client.transmit(now)
        client.events()
        client.messages()
        for answer, _ in endpoint.transmit(now):
            down.append(answer)
            sent += len(answer)
        for connection, _ in endpoint.events():
            connection.messages()
            connection.early_messages()
        if not endpoint.counters.connections_opened:
            assert sent <= 3 * received, "amplification"
        if script.over and not up and not down:
            break
        choice = script.byte(10)
        match choice:
            case 0 | 1 | 2:
                # What is under way arrives.
                for datagram in up:
                    endpoint.receive([(datagram, here)], now)
                    received += len(datagram)
                for datagram in down:
                    client.receive(datagram, now)
                seen += [*up, *down]
                up, down = [], []
            case 3 if up:
                datagram = script.damaged(up.pop(0))
                endpoint.receive([(datagram, here)], now)
                received += len(datagram)
            case 4 if down:
                client.receive(script.damaged(down.pop(0)), now)
            case 5:
                raw = script.piece()
                endpoint.receive([(raw, address(script.byte(3)))], now)
                received += len(raw)
            case 6:
                client.receive(script.piece(), now)
            case 7 if seen:
                datagram = seen[script.byte(len(seen))]
                if script.byte(2):
                    datagram = script.damaged(datagram)
                endpoint.receive([(datagram, address(script.byte(3)))], now)
                received += len(datagram)
                client.receive(datagram, now)
            case 8:
                now += (0.01, 1.0, 10.0, 100.0)[script.byte(4)]
                client.wake(now)
                endpoint.wake(now)
                for due in (client.deadline(), endpoint.deadline()):
                    assert due is None or due > now, "a deadline in the past"
            case 9:
                for to_client, datagram in _use(script, client, list(endpoint), now):
                    if to_client:
                        client.receive(datagram, now)
                    else:
                        endpoint.receive([(datagram, here)], now)
                        received += len(datagram)
            case _:
                pass
        ended_well(client.error)
        assert 0 <= endpoint.ledger.held <= limits.total_bytes
        assert endpoint.connections <= 2 * limits.connections
    # What came and was not read stays charged until it is, also when the connection is over.
    closing = [client, *endpoint]
    for connection in closing:
        connection.abort()
        connection.messages()
        connection.early_messages()
    endpoint.transmit(now)
    endpoint.events()
    assert endpoint.connections == 0
    assert endpoint.ledger.held == at_rest, "the endpoint's ledger"
    assert ledger.held == 0, "the client's ledger"


def _use(
    script: Script, client: dtls.Connection, servers: list[dtls.Connection], now: float
) -> list[tuple[bool, bytes]]:
    """Something an application does, or a peer with good keys and bad manners.

    Returns datagrams of the latter: whether they are for the client, and their bytes.
    """
    one = ([*servers, client])[script.byte(len(servers) + 1)]
    connected = one.state is dtls.State.CONNECTED
    match script.byte(7):
        case 0 if connected:
            one.send(b"data")
        case 1 if connected:
            one.update_keys(now, request_peer=bool(script.byte(2)))
        case 2 if connected:
            try:
                one.offer_connection_ids(1 + script.byte(3), immediate=bool(script.byte(2)))
            except Error:
                pass
        case 3 if connected:
            try:
                one.request_connection_ids(1 + script.byte(3))
            except Error:
                pass
        case 4:
            one.close(now)
        case 5 if connected:
            # A record that authenticates and holds anything.
            sealing, kind = one._sealing, 1 + script.byte(255)
            return [(one is not client, sealing.record(sealing.epoch, kind, script.piece())[1])]
        case 6 if connected:
            # A handshake message that authenticates and holds anything.
            other = client if one is not client else next(iter(servers), client)
            body, kind = script.piece(), (4, 8, 9, 10, 11, 13, 20, 24, 1, 2)[script.byte(10)]
            seq = other._layer.reassembly.next_seq + script.byte(3)
            content = fragment_header(kind, len(body), seq, 0, len(body)) + body
            return [(one is not client, one._sealing.record(one._sealing.epoch, 22, content)[1])]
        case _:
            pass
    return []


def _cookie(data: bytes) -> None:
    jar = CookieJar(PROVIDER, 60.0)
    assert jar.check(data, address(0), 1.0) is None


DATAGRAMS: Final[tuple[Target, ...]] = (_endpoint, _cookie)


def _stream(data: bytes) -> None:
    script = Script(data)
    server, config = early_config()
    if script.byte(2):
        chosen = all_recordings()[script.byte(len(all_recordings()))]
        config, server = chosen.client, chosen.server
    ledger = Ledger(Limits())
    ends = (
        stcp.Connection.client(config, now=0.0, server_name="localhost", ledger=ledger),
        stcp.Connection.server(server, now=0.0, ledger=ledger),
    )
    for _ in range(60):
        flights = [end.data_to_send() for end in ends]
        for end in ends:
            end.events()
            if end.buffered:
                end.read()
        if script.over and not any(flights):
            break
        for side, flight in enumerate(flights):
            receiver = ends[1 - side]
            if receiver.error is not None:
                continue
            match script.byte(8):
                case 4 if flight:
                    receiver.receive_data(script.damaged(flight))
                case 5:
                    receiver.receive_data(flight + script.piece())
                case 6 if ends[side].state == "connected" and not ends[side].error:
                    # A record that authenticates and holds anything.
                    sealer = ends[side]._outgoing._sealer
                    assert sealer is not None
                    receiver.receive_data(flight + sealer.seal(1 + script.byte(255), script.piece()))
                case 7 if ends[side].state == "connected":
                    ends[side].send(b"data")
                    ends[side].update_keys(request_peer=bool(script.byte(2)))
                    receiver.receive_data(flight)
                case _:
                    # In pieces.
                    n = 1 + script.byte()
                    receiver.receive_data(flight[:n])
                    if receiver.error is None:
                        receiver.receive_data(flight[n:])
        for end in ends:
            ended_well(end.error)
    for end in ends:
        end.receive_eof()
        end.release()
    assert ledger.held == 0


def _deframe(data: bytes) -> None:
    whole, cut = Deframer(), Deframer()
    n = 1 + (data[0] if data else 0)
    outcomes = []
    for deframer, step in ((whole, len(data) + 1), (cut, n)):
        out: list[bytes | str] = []
        try:
            for at in range(0, len(data), step):
                view, taken = memoryview(data)[at : at + step], 0
                while taken < len(view):
                    record, taken = deframer.take(view, taken)
                    if record is not None:
                        out.append(bytes(record))
        except ProtocolError as error:
            known(error)
            out.append(error.reason)
        outcomes.append(out)
    assert outcomes[0] == outcomes[1], "where the stream was cut matters"


def _join(data: bytes) -> None:
    joiner = MessageJoiner(1_000)
    joiner.feed(data)
    try:
        while (message := joiner.message()) is not None:
            assert len(message) <= 1_000
    except ProtocolError as error:
        known(error)


STREAMS: Final[tuple[Target, ...]] = (_stream, _deframe, _join)
