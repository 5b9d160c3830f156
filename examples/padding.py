"""What a watcher of the network learns from lengths, without and with padding.

python examples/padding.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse

import sealwire

WORDS = (b"yes", b"no", b"perhaps, if the weather is good")


def handshake(client, server):
    """Hand on what each sends until neither has more to say."""
    while True:
        up, down = client.transmit(0.0), server.transmit(0.0)
        server.receive_run(up, 0.0)
        client.receive_run(down, 0.0)
        if not up and not down:
            return


def lengths(args, padded):
    served = sealwire.Context(sealwire.PROTOCOL_SERVER)
    served.load_cert_chain(args.cert, args.key)
    context = sealwire.create_default_context(cafile=args.cafile)
    context.record_size_limit = 600  # ask the server for no longer records (RFC 8449)
    if padded:
        context.set_block_padding(64)
    client = sealwire.dtls.Connection.client(context.config(), now=0.0, server_name="localhost")
    server = sealwire.dtls.Connection.server(served.config(), now=0.0)
    handshake(client, server)
    client.send_many(WORDS)
    datagrams = client.transmit(0.0)
    server.receive_run(datagrams, 0.0)
    assert server.messages() == list(WORDS)
    return [len(datagram) for datagram in datagrams], server.max_message_bytes


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    arguments = parser.parse_args()
    print("as they are:", *lengths(arguments, padded=False)[0])
    seen, longest = lengths(arguments, padded=True)
    print("padded:     ", *seen)
    print("the server sends at most", longest, "bytes of data in a record")
