"""A probe seals and delivers, a collector verifies, keeps and signs receipts: all of it on this machine.

    python examples/collecting.py capture.pcap

Needs `pip install 'sealwire[probe]'`.  Each part is the program that one would run on a machine of its own.
"""

import json
import signal
import subprocess
import sys
import tempfile


def sealwire(*words: str) -> list[str]:
    return [sys.executable, "-m", "sealwire.cli", *words]


def run(*words: str) -> None:
    done = subprocess.run(sealwire(*words), capture_output=True, check=False)  # noqa: S603
    print("$ sealwire", words[0], "-> exit", done.returncode)


def main(capture: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        run("cert", "--dir", place)
        run("keygen", f"{place}/probe.key")
        run("keygen", f"{place}/collector.key")
        run("enroll", *enrol(place), "--name", "gate-1")

        words = [
            *("--json", "collect", "--listen", "127.0.0.1:0", "--client-ca", f"{place}/ca.pem"),
            *("--cert", f"{place}/server.pem", "--key", f"{place}/server.key"),
            *(
                "--sign",
                f"{place}/collector.key",
                "--enrolled",
                f"{place}/enrolled",
                "--out",
                f"{place}/store",
            ),
        ]
        collector = subprocess.Popen(sealwire(*words), stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert collector.stdout is not None
        port = json.loads(collector.stdout.readline())["port"]

        run(
            *("probe", "-r", capture, "--sign", f"{place}/probe.key", "--spool", f"{place}/spool"),
            *("--to", f"127.0.0.1:{port}", "--server-name", "localhost", "--cafile", f"{place}/ca.pem"),
            *("--cert", f"{place}/client.pem", "--tls-key", f"{place}/client.key"),
        )
        collector.send_signal(signal.SIGTERM)
        collected = json.loads(collector.communicate()[0].splitlines()[-1])
        print(f"{collected['segments']} segments stored, {collected['events']} events")

        receipts = [f"{place}/spool/receipts-0000000000000000", "--collector", f"{place}/collector.key.pub"]
        run("verify", f"{place}/spool", "--key", f"{place}/probe.key.pub", "--receipts", *receipts)


def enrol(place: str) -> list[str]:
    """What a collector has to know of a probe: two public files."""
    files = ("--key", f"{place}/probe.key.pub", "--identity", f"{place}/client.pem")
    return ["--enrolled", f"{place}/enrolled", *files]


if __name__ == "__main__":
    main(sys.argv[1])
