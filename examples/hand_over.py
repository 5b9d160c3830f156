"""An association moves to another process (here: another Endpoint) in the middle of a transfer.

python examples/hand_over.py --cert server.pem --key server.key --cafile ca.pem
"""

import argparse
import os
import tempfile

import sealwire
from sealwire import dtls
from sealwire.drive.states import StateDirectory

ADDRESS = ("192.0.2.7", 50007)


def turn(client, endpoint, now):
    """Carry datagrams between the two until nobody has more to say."""
    while True:
        to_server = client.transmit(now)
        endpoint.receive([(datagram, ADDRESS) for datagram in to_server], now)
        for connection in endpoint:
            connection.send_many([b"you said " + message for message in connection.messages()])
        to_client = endpoint.transmit(now)
        for datagram, _ in to_client:
            client.receive(datagram, now)
        if not to_server and not to_client:
            return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cafile", required=True)
    args = parser.parse_args()
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_cert_chain(args.cert, args.key)
    config = sealwire.create_default_context(cafile=args.cafile).config()
    now = 0.0

    here, there = dtls.Endpoint(server.config), dtls.Endpoint(server.config)
    client = dtls.Connection.client(config, now=now, server_name="localhost")
    turn(client, here, now)
    client.send(b"one")
    turn(client, here, now)
    print(client.messages())

    key = os.urandom(32)
    with tempfile.TemporaryDirectory() as directory:
        states = StateDirectory(os.path.join(directory, "states"))
        (connection,) = here
        states.save(connection.export_state(key, now))
        for state in states:
            there.adopt(state, key, ADDRESS, claim=states.claim, now=now)
        client.send(b"two")
        turn(client, there, now)
        print(client.messages(), "from another process, under keys of epoch", client.sending_epoch)
        try:
            there.adopt(state, key, ADDRESS, claim=states.claim, now=now)
        except sealwire.Error as error:
            print("once more:", error)


if __name__ == "__main__":
    main()
