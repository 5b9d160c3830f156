"""Messages without asyncio: socketserver's handlers in threads, and a blocking client.

python examples/threaded_messages.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import socketserver
import sys
import threading

import sealwire


class Upper(socketserver.BaseRequestHandler):
    def handle(self):
        for message in self.request.messages():
            self.request.write_message(message.upper())


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--cert", "--key", "--cafile"):
        options.add_argument(name, required=True)
    arguments = options.parse_args()
    server_side = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server_side.load_cert_chain(arguments.cert, arguments.key)
    client_side = sealwire.create_default_context(cafile=arguments.cafile)
    with sealwire.ThreadedServer(
        ("localhost", 0), Upper, context=server_side, messages=True, threads=4
    ) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = ("localhost", server.server_address[1])
        with sealwire.create_connection(address, 10, context=client_side, messages=True) as client:
            for message in (b"one", b"two"):
                client.write_message(message)
            print(client.read_message().decode(), client.read_message().decode())
        print("cut off:", server.drain(5))
        thread.join()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # sealwire.Error is one
        sys.exit(f"{type(error).__name__}: {error}")
