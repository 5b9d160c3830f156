"""A server that is watched: metrics for Prometheus, health, a snapshot, an alert.

python examples/monitoring.py --cert dev/server.pem --key dev/server.key --cafile dev/ca.pem
"""

import argparse
import asyncio
import urllib.request

import sealwire
from sealwire.monitor import Monitor, Recorder, Rule, Severity, serve_metrics, snapshot


async def echo(channel):
    async for data in channel:
        await channel.send(data)


def tell(alert):
    if alert.firing:
        print("alert:", alert.rule.name)


def page(address, path):
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}") as answer:
        return answer.read().decode()


async def main(args):
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    context.load_cert_chain(args.cert, args.key)
    client = sealwire.create_default_context(cafile=args.cafile)
    async with await sealwire.start_datagram_server(echo, "localhost", 0, context=context) as server:
        monitor = Monitor()
        monitor.watch(server, "echo")
        # One that fires at once, to be seen; sealwire.monitor.DEFAULT_RULES are more patient.
        rules = [Rule("somebody came", "handshakes_per_second", 0, Severity.WARNING, seconds=0)]
        async with (
            Recorder(monitor, every=0.1, on_alert=tell, rules=rules),
            await serve_metrics(monitor, "127.0.0.1", 0) as metrics,
        ):
            await asyncio.sleep(0.2)
            port = server.sockets[0].getsockname()[1]
            async with sealwire.open_datagram_channel("localhost", port, context=client) as channel:
                await channel.send(b"hello")
                await channel.recv()
                await asyncio.sleep(0.3)

                text = await asyncio.to_thread(page, metrics.addresses[0], "/metrics")
                print(next(line for line in text.splitlines() if line.startswith("sealwire_connections{")))
                print("ready:", (await asyncio.to_thread(page, metrics.addresses[0], "/readyz")).strip())
                print("messages:", snapshot(monitor)["servers"]["echo"]["connection"]["messages_received"])
                print("costs most:", server.top_peers(1)[0].peer.rpartition(":")[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key", "--cafile"):
        parser.add_argument(option, required=True)
    asyncio.run(main(parser.parse_args()))
