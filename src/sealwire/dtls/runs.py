"""Which trains of a batch may stay trains: those whose datagrams are records to one connection."""

from __future__ import annotations

from collections.abc import Sequence

from sealwire.dtls.cookie import Address
from sealwire.dtls.header import is_ciphertext
from sealwire.dtls.peers import Peers
from sealwire.record.train import Train
from sealwire.wire import Buffer

Batch = Sequence[tuple[Buffer | Train, Address]]


def sort_batch(
    batch: Batch, peers: Peers, cid_bytes: int | None
) -> tuple[Batch, Sequence[tuple[Buffer, Address]]]:
    """The same with only those trains left that are records to one connection at its address.

    And again, for who looks at single datagrams, with nothing in their place.
    """
    if not any(isinstance(one, Train) for one, _ in batch):
        return batch, batch  # type: ignore[return-value]
    found: list[tuple[Buffer | Train, Address]] = []
    single: list[tuple[Buffer, Address]] = []
    for one, address in batch:
        if isinstance(one, Train) and _is_run(one, address, peers, cid_bytes):
            found.append((one, address))
            single.append((b"", address))
            continue
        for datagram in one.split() if isinstance(one, Train) else (one,):
            found.append((datagram, address))
            single.append((datagram, address))
    return found, single


def singles(batch: Sequence[tuple[bytes | Train, Address]]) -> list[tuple[bytes, Address]]:
    """The datagrams of a batch, one by one."""
    return [(one, to) for data, to in batch for one in (data.split() if isinstance(data, Train) else (data,))]


def _is_run(train: Train, address: Address, peers: Peers, cid_bytes: int | None) -> bool:
    first = train.data[0]
    if not is_ciphertext(first):
        return False
    known = peers.by_address.get(address)
    if not first & 0x10 or not cid_bytes:
        return known is not None and train.starts_alike(1)
    # RFC 9146: the id says whose they are, if all carry the same one.
    cid = train.data[1 : 1 + cid_bytes]
    return (
        known is not None
        and known is peers.by_cid.get(cid)
        and address not in peers.replacements
        and train.starts_alike(1 + cid_bytes)
    )
