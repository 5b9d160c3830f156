"""Blocking sockets, as with the ssl module: the kind of socket picks the protocol.

python examples/blocking_echo.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import socket
import sys
import threading

import sealwire


def serve_datagrams(context, sock):
    with context.wrap_socket(sock, server_side=True) as secure:  # waits for the first peer
        for message in secure:
            secure.send(message)


def serve_stream(context, sock):
    with context.wrap_socket(sock, server_side=True) as listening:
        secure, _ = listening.accept()
        with secure:
            while data := secure.recv(4096):
                secure.sendall(data)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--cert", "--key", "--cafile"):
        options.add_argument(name, required=True)
    arguments = options.parse_args()
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_cert_chain(arguments.cert, arguments.key)
    client = sealwire.create_default_context(cafile=arguments.cafile)

    for kind, serve in ((socket.SOCK_DGRAM, serve_datagrams), (socket.SOCK_STREAM, serve_stream)):
        sock = socket.socket(socket.AF_INET, kind)
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        if kind == socket.SOCK_STREAM:
            sock.listen()
        thread = threading.Thread(target=serve, args=(server, sock), daemon=True)
        thread.start()
        with sealwire.create_connection(
            address, 10, context=client, server_hostname="localhost", kind=kind
        ) as secure:
            secure.sendall(b"hello")
            print(secure.version(), secure.cipher()[0], secure.recv(4096).decode())
        thread.join()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # sealwire.Error is one
        sys.exit(f"{type(error).__name__}: {error}")
