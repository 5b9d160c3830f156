from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from sealwire.probe.dissect.scan import News, Row

def rows(
    data: bytes,
    stride: int,
    facts_at: int,
    facts: bytes,
    named: Mapping[bytes, object],
    fresh: AbstractSet[bytes],
) -> list[Row]: ...
def news(events: bytes) -> list[News]: ...
