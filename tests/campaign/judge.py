"""What must hold after every fault: nothing acknowledged is lost, nothing stored twice, no hole unsaid."""

from __future__ import annotations

import collections
import time
from dataclasses import dataclass, field
from pathlib import Path

from sealwire.probe.events import Gap, GapReason, decode
from sealwire.probe.seal import frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.delivered import RECEIPTS
from sealwire.probe.seal.keys import load_public_key
from sealwire.probe.seal.receipts import receipts
from sealwire.probe.seal.segment import Segment
from sealwire.probe.spool import SUFFIX
from sealwire.probe.verify import Trust, Verifier


@dataclass(slots=True)
class Verdict:
    """What was found; the first three must be 0."""

    acknowledged_lost: int = 0
    duplicates: int = 0
    unexplained: int = 0
    segments: int = 0
    events: int = 0
    flows: int = 0
    acknowledged: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    #: Events that gaps say were lost before they had a number.
    declared: int = 0
    findings: list[str] = field(default_factory=list)
    #: When the last stored segment was sealed, nanoseconds since 1970.
    last_sealed: int = 0

    @property
    def good(self) -> bool:
        return not (self.acknowledged_lost or self.duplicates or self.unexplained)


class Judge:
    """Looks at a probe's receipts and a collector's store."""

    def __init__(self, spool: Path, store: Path, keys: Path) -> None:
        self._spool, self._store = spool, store
        self._key = load_public_key(keys / "probe.key.pub")
        self._collector = load_public_key(keys / "collector.key.pub")
        #: Everything ever acknowledged: number and hash.
        self.acknowledged: dict[int, bytes] = {}

    def _take_receipts(self) -> None:
        for path in sorted(self._spool.glob(RECEIPTS + "*")):
            try:
                for receipt in receipts(path.read_bytes()):
                    assert receipt.authentic(self._collector), "a receipt that the collector did not sign"
                    self.acknowledged.update(receipt.segments)
            except (Malformed, FileNotFoundError):
                pass  # being written, cut by a kill, or just removed

    def stored(self) -> list[Segment]:
        """What the store's files hold, as far as it is whole."""
        found = []
        for path in sorted((self._store / self._key.id.hex()).glob("*" + SUFFIX)):
            try:
                found += [one.segment for one in frames.unpack(path.read_bytes())]
            except (Malformed, FileNotFoundError):
                pass  # the end of the last file is being written
        return found

    def judge(self) -> Verdict:
        # Receipts first: what they name must be in the store already.
        self._take_receipts()
        verdict = Verdict(acknowledged=len(self.acknowledged))
        stored = self.stored()
        numbers = collections.Counter(segment.header.segment for segment in stored)
        verdict.duplicates = sum(n - 1 for n in numbers.values())
        hashes = {segment.header.segment: segment.hash for segment in stored}
        verdict.acknowledged_lost = sum(
            1 for number, known in self.acknowledged.items() if hashes.get(number) != known
        )
        verifier = Verifier(Trust({self._key.id: self._key}), time.time_ns())
        gaps: collections.Counter[str] = collections.Counter()
        for segment in stored:
            verifier.segment("store", segment)
            for leaf in segment.leaves():
                if leaf[1] == Gap.SCHEMA and isinstance(event := decode(leaf), Gap):
                    gaps[GapReason(event.reason).name.lower().replace("_", " ")] += 1
                    verdict.declared += event.events or 0
        findings = verifier.finish()
        # While faults go on, the probe may be behind with its heartbeat: that is no hole.
        faults = [one for one in findings if one.fault is not None and one.fault.name != "OPEN_END"]
        verdict.unexplained = len(faults)
        verdict.findings = [str(one) for one in faults[:5]]
        verdict.gaps = dict(sorted(gaps.items()))
        totals = verifier.totals
        verdict.segments, verdict.events, verdict.flows = totals.segments, totals.events, totals.flows
        verdict.last_sealed = stored[-1].header.sealed.wall if stored else 0
        return verdict
