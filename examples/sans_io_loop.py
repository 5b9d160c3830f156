"""The engine itself: two DTLS 1.3 connections, a lossy link in a list, and a clock that is a number.

    python examples/sans_io_loop.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem

This is how a game loop, a simulator or another event loop drives a connection.  The law: after
every receive, wake or send, take transmit() and events(), and ask deadline() again.
"""

import argparse
import random

import sealwire

LOSS = 0.2
DELAY_SECONDS = 0.03


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--cert", "--key", "--cafile"):
        options.add_argument(name, required=True)
    options.add_argument("--seed", type=int, default=1)
    arguments = options.parse_args()
    server_context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server_context.load_cert_chain(arguments.cert, arguments.key)
    client_context = sealwire.create_default_context(cafile=arguments.cafile)

    now = 0.0
    dice = random.Random(arguments.seed)  # noqa: S311 (for the link)
    client = sealwire.dtls.Connection.client(client_context.config(), now=now, server_name="localhost")
    server = sealwire.dtls.Connection.server(server_context.config(), now=now)
    peer_of = {client: server, server: client}
    on_the_wire = []  # (time of arrival, receiver, datagram)

    def serve(connection):
        """What must be done after anything happened to a connection."""
        on_the_wire.extend(
            (now + DELAY_SECONDS, peer_of[connection], datagram)
            for datagram in connection.transmit(now)
            if dice.random() >= LOSS
        )
        for event in connection.events():
            name = "client" if connection is client else "server"
            print(f"{now:6.2f} s  {name}: {type(event).__name__}")
            if isinstance(event, sealwire.dtls.Connected) and connection is client:
                client.send(b"hello over a bad link")
                serve(client)

    serve(client)
    received = []
    while not received and now < 60:
        deadlines = [d for d in (client.deadline(), server.deadline()) if d is not None]
        arrivals = [time for time, _, _ in on_the_wire]
        now = min(deadlines + arrivals)
        arrived = [(receiver, datagram) for time, receiver, datagram in on_the_wire if time <= now]
        on_the_wire[:] = [item for item in on_the_wire if item[0] > now]
        for receiver, datagram in arrived:
            receiver.receive(datagram, now)
            serve(receiver)
        for connection in (client, server):
            if connection.deadline() is not None and connection.deadline() <= now:
                connection.wake(now)
                serve(connection)
        received = server.messages()
        if not received and client.state == "connected" and not on_the_wire:
            client.send(b"hello over a bad link")  # datagrams are not repeated for us
            serve(client)
    print(f"{now:6.2f} s  server received {received[0].decode()!r}")


if __name__ == "__main__":
    main()
