"""What must hold after every fault: nothing acknowledged is lost, nothing stored twice, no hole unsaid."""

from __future__ import annotations

import collections
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path

from sealwire.probe.events import Gap, GapReason, decode
from sealwire.probe.seal import cose, frames
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.delivered import RECEIPTS
from sealwire.probe.seal.keys import load_public_key
from sealwire.probe.seal.receipts import receipts
from sealwire.probe.seal.segment import Segment
from sealwire.probe.spool import SUFFIX
from sealwire.probe.verify import Fault, Trust, Verifier


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
    """Looks at a probe's receipts and a collector's store, each time only at what is new."""

    def __init__(self, spool: Path, store: Path, keys: Path) -> None:
        self._spool, self._store = spool, store
        self._key = load_public_key(keys / "probe.key.pub")
        self._collector = load_public_key(keys / "collector.key.pub")
        self._verifier = Verifier(Trust({self._key.id: self._key}), time.time_ns())
        self._read: dict[Path, int] = {}
        self._taken: dict[Path, int] = {}
        self._gaps: collections.Counter[str] = collections.Counter()
        self._declared = 0
        #: Everything ever acknowledged, and everything stored: number and hash.
        self.acknowledged: dict[int, bytes] = {}
        self.stored: dict[int, bytes] = {}
        self._duplicates = 0
        self._last: Segment | None = None

    @property
    def folder(self) -> Path:
        """The probe's part of the store."""
        return self._store / self._key.id.hex()

    def _take_receipts(self) -> None:
        for path in sorted(self._spool.glob(RECEIPTS + "*")):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            at = self._taken.get(path, 0)
            while at < len(data):
                try:
                    _, end = cose.read(data, at)
                except Malformed:
                    break  # being written, or cut by a kill
                (receipt,) = receipts(data[at:end])
                assert receipt.authentic(self._collector), "a receipt that the collector did not sign"
                self.acknowledged.update(receipt.segments)
                at = end
            self._taken[path] = at

    def _take_segments(self) -> None:
        for path in sorted(self.folder.glob("*" + SUFFIX)):
            at = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(at)
                data = file.read()
            try:
                for found in frames.unpack(data):
                    self._take(path, found.segment)
                    self._read[path] = at + found.end
            except Malformed:
                pass  # the end of the last file is being written, or will be cut off

    def _take(self, path: Path, segment: Segment) -> None:
        number = segment.header.segment
        self._duplicates += number in self.stored
        self.stored[number] = segment.hash
        self._last = segment
        self._verifier.segment(path.name, segment)
        for leaf in segment.leaves():
            if leaf[1] == Gap.SCHEMA and isinstance(event := decode(leaf), Gap):
                self._gaps[GapReason(event.reason).name.lower().replace("_", " ")] += 1
                self._declared += event.events or 0

    def judge(self) -> Verdict:
        # Receipts first: what they name must be in the store already.
        self._take_receipts()
        self._take_segments()
        lost = [number for number, known in self.acknowledged.items() if self.stored.get(number) != known]
        # What only the end can tell is asked of a copy, as if this were the end.
        verifier = copy.copy(self._verifier)
        verifier.totals = copy.copy(verifier.totals)
        verifier._found = list(verifier._found)
        findings = verifier.finish()
        # While faults go on, the probe may be behind with its heartbeat: that is no hole.
        faults = [one for one in findings if one.fault not in (None, Fault.OPEN_END)]
        totals = verifier.totals
        return Verdict(
            acknowledged_lost=len(lost),
            duplicates=self._duplicates,
            unexplained=len(faults),
            segments=totals.segments,
            events=totals.events,
            flows=totals.flows,
            acknowledged=len(self.acknowledged),
            gaps=dict(sorted(self._gaps.items())),
            declared=self._declared,
            findings=[str(one) for one in faults[:5]],
            last_sealed=0 if self._last is None else self._last.header.sealed.wall,
        )
