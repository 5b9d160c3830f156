"""A question with the first datagram, and the answer with the server's first: early data.

python examples/early_data.py --cert server.pem --key server.key --cafile ca.pem
"""

import argparse
import asyncio
import socket

import sealwire

QUESTION = b"6 x 7"  # asking twice does no harm


def answer(question):
    return b"answer of %d" % (int(question[:1]) * int(question[-1:]))


def on_early_data(connection, data):
    """Called before the client has proved to be there: anybody may have sent a copy of this."""
    connection.send_before_finished(answer(data) + b", before the handshake was over")


async def on_channel(channel):
    async for data in channel:
        await channel.send(answer(data))


async def on_stream(reader, writer):
    if data := await reader.read(4096):
        writer.write(answer(data))
    writer.close()


async def ask(port, context):
    opening = sealwire.open_datagram_channel("localhost", port, context=context)
    opening.send_replayable(QUESTION)
    async with opening as channel:
        if channel.early_data is sealwire.dtls.EarlyData.ACCEPTED:
            words = ""
        else:
            # Lost, and never sent again by itself: only we know that asking again is harmless.
            await channel.send(QUESTION)
            words = "asked again, "
        print(f"{channel.early_data.value}: {words}{(await channel.recv()).decode()}")
        await asyncio.sleep(0.1)  # for the ticket to come back with


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cafile", required=True)
    args = parser.parse_args()

    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_cert_chain(args.cert, args.key)
    server.num_tickets = 2
    server.max_early_data_size = 1000

    client = sealwire.create_default_context(cafile=args.cafile)
    client.session_store = sealwire.SessionStore()

    options = {"context": server, "family": socket.AF_INET, "on_early_data": on_early_data}
    over_udp = await sealwire.start_datagram_server(on_channel, "localhost", 0, **options)
    over_tcp = await sealwire.start_server(on_stream, "localhost", 0, **options)
    async with over_udp, over_tcp:
        udp, tcp = (one.sockets[0].getsockname()[1] for one in (over_udp, over_tcp))
        await ask(udp, client)  # the first time there is no ticket
        await ask(udp, client)
        server.set_early_data_window(10)  # begins anew, as another process would
        await ask(udp, client)

        for _ in range(2):
            reader, writer = await sealwire.open_connection(
                "localhost", tcp, context=client, send_replayable=QUESTION
            )
            if writer.early_data is sealwire.dtls.EarlyData.ACCEPTED:
                writer.write_eof()
                print(f"accepted over {writer.version()}: {(await reader.read()).decode()}")
            else:
                writer.write(QUESTION)
                await reader.read()
            writer.close()
            await writer.wait_closed()


asyncio.run(main())
