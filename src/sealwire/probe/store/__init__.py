"""Where a collector keeps what probes sealed: segments as they came, rows of them, and proof of each row.

`Store` writes; `reading` reads; `compaction` makes Parquet of what is complete; `retention` removes and
signs for it; `query` asks DuckDB.  A folder for each probe:

    0000000000000000.seal.zst   segments as they came, in files named by their first one
    key-<id>                    the public keys they are signed with
    000…-000….flows.parquet     rows of a range of segments; transactions, events and more likewise
    manifest                    which tables and files count
    checkpoints                 what was removed, signed by the collector
"""

from sealwire.probe.store.appending import Store, Stored, StoreFull
from sealwire.probe.store.chain import Rejected, Rejection

__all__ = ["Rejected", "Rejection", "Store", "StoreFull", "Stored"]
