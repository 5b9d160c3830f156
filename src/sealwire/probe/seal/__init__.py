"""Sealing: events as leaves, leaves under a root, roots signed and chained.

`leaves` (compiled: `_leaves`) writes flows and what they are as deterministic CBOR, `tree` (`_tree`)
hashes it; `segment` signs a root and proves single events; `recorder` keeps the chain and the spool;
`signer` is the process that holds the key, and `client` how the capturing process talks to it.

    from sealwire.probe.seal.client import Signer

    with Signer("events/", "probe.key") as signer:
        for batch in sealwire.probe.read("capture.pcap", dissect=True).batches():
            signer.write(batch)

Needs cbor2 and zstandard: pip install 'sealwire[probe]'.
"""
