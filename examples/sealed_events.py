"""Seal the flows of a capture and what they are, alter one byte of what was sealed, and see it found.

python examples/sealed_events.py capture.pcap
"""

import pathlib
import subprocess
import sys
import tempfile

import sealwire.probe
from sealwire.probe.seal.client import Signer


def program(*arguments: str) -> None:
    """What one would type: sealwire ..."""
    command = [sys.executable, "-m", "sealwire.cli", *arguments]
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE)  # noqa: S603
    print(f"$ sealwire {' '.join(arguments[:1])} -> exit {done.returncode}")
    print(done.stdout.strip())


def main(capture: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        key, events = f"{directory}/probe.key", f"{directory}/events"
        program("keygen", key)
        with Signer(events, key) as signer:
            for batch in sealwire.probe.read(capture, dissect=True).batches():
                signer.write(batch)
        print("sealed, and durable up to event", signer.committed["event"])
        program("verify", events, "--key", f"{key}.pub")

        (file,) = pathlib.Path(events).glob("*.seal.zst")
        damaged = bytearray(file.read_bytes())
        damaged[-100] ^= 1
        file.write_bytes(damaged)
        program("verify", events, "--key", f"{key}.pub")


if __name__ == "__main__":
    main(sys.argv[1])
