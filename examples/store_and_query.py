"""Flows sealed, stored, asked for in SQL, and one row of the answer proved.

    python examples/store_and_query.py capture.pcap

Needs `pip install 'sealwire[query]'`.  What a collector does with segments that come over the network, this
does with those of a spool: they are verified, made durable, and only then count.
"""

import sys
import tempfile
import time
from pathlib import Path

import sealwire.probe
from sealwire.probe.seal import frames
from sealwire.probe.seal.client import Signer
from sealwire.probe.seal.keys import generate, load_public_key
from sealwire.probe.store import Store, Stored
from sealwire.probe.store.disk import Folders
from sealwire.probe.store.proving import prove_row
from sealwire.probe.store.query import Questions
from sealwire.probe.verify import Trust, verify_proof


def main(capture: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        private, public, _ = generate("ed25519")
        key_file = Path(place, "probe.key")
        key_file.touch(mode=0o600)
        key_file.write_bytes(private)
        key_file.with_suffix(".key.pub").write_bytes(public)
        key = load_public_key(key_file.with_suffix(".key.pub"))

        with Signer(Path(place, "spool"), key_file) as signer:
            for batch in sealwire.probe.read(capture, dissect=True).batches():
                signer.write(batch)

        store = Store(Path(place, "store"), {key.id: key}.get)
        for file in sorted(Path(place, "spool").glob("*.seal.zst")):
            data = file.read_bytes()
            for found in frames.unpack(data):
                answer = store.append(key.id, data[found.begin : found.end], time.time_ns())
                assert isinstance(answer, Stored), answer
        store.close()

        with Questions(Path(place, "store")) as questions:
            for row in questions.ask("from protocols").rows():
                print(*row)
            row_number, source, destination = next(
                questions.ask("select row, source, destination from flows order by row limit 1").rows()
            )
        proof = prove_row(Folders(Path(place, "store")), row_number).proof
        proved = verify_proof(proof, Trust({key.id: key}), time.time_ns())
        print(f"row {row_number}, {source} to {destination}: proved, segment {proved.header.segment}")


if __name__ == "__main__":
    main(sys.argv[1])
