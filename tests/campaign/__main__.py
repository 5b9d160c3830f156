"""The campaign: faults drawn by a seed, under load; after each, everything must still hold.

    python -m tests.campaign --seed 1 --faults 200 [--rate 1000] [--json]

Prints a table of what was done and how long it took until a segment sealed after the fault was stored.
Ends with 1 if anything acknowledged was lost, stored twice, or missing without a signed word.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.campaign.judge import Judge, Verdict
from tests.campaign.place import Place, cut_bytes, placed, run, sealwire

_RECOVERY_SECONDS: Final = 90.0
_WHO: Final = ("probe", "signer", "exporter", "collector")


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Tally:
    """Faults of one kind."""

    count: int = 0
    seconds: list[float] = field(default_factory=list)


class Campaign:
    """Faults one after another."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.judge = Judge(place.spool, place.store, place.path)
        self.tallies: dict[str, Tally] = collections.defaultdict(Tally)
        self.verdict = Verdict()
        self._chance = random.Random(seed)

    def faults(self) -> dict[str, Callable[[], None]]:
        """What can be done, by name."""
        found: dict[str, Callable[[], None]] = {}
        for who in _WHO:
            found[f"kill {who}"] = lambda who=who: self._kill(who)  # type: ignore[misc]
            found[f"stop {who}"] = lambda who=who: self._stop(who)  # type: ignore[misc]
        found["cut network"] = self._cut
        if self.place.spool_disk.small:
            found["fill probe's disk"] = lambda: self._fill(self.place.spool_disk)
            found["fill collector's disk"] = lambda: self._fill(self.place.store_disk)
        return found

    def _kill(self, who: str) -> None:
        if (pid := self.place.pid(who)) is not None:
            os.kill(pid, signal.SIGKILL)

    def _stop(self, who: str) -> None:
        pid = self.place.pid(who)
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.1, 2.0))
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)

    def _cut(self) -> None:
        self.place.network.cut(cut_bytes(self._chance))
        time.sleep(self._chance.uniform(0.0, 1.0))
        self.place.network.mend()

    def _fill(self, disk: object) -> None:
        from tests.campaign.place import Disk

        assert isinstance(disk, Disk)
        disk.fill()
        time.sleep(self._chance.uniform(0.2, 2.0))
        if self._chance.random() < 0.3:
            self._kill(self._chance.choice(_WHO))
        self.place.keep_up()
        time.sleep(self._chance.uniform(0.0, 0.5))
        disk.free()

    def recovered(self, since: int) -> None:
        """Wait until a segment sealed after `since` is stored."""
        end = time.monotonic() + _RECOVERY_SECONDS
        while True:
            self.place.keep_up()
            self.verdict = self.judge.judge()
            self.check()
            if self.verdict.last_sealed > since:
                return
            if time.monotonic() > end:
                raise Broken(f"nothing is stored {_RECOVERY_SECONDS:.0f} s after the fault: {self.facts()}")
            time.sleep(0.05)

    def facts(self) -> str:
        """What the parts say of themselves, for who looks for the cause."""
        told = []
        for path in (self.place.spool / "export.json", self.place.store / "collect.json"):
            with contextlib.suppress(OSError):
                told.append(path.read_text())
        pids = {who: self.place.pid(who) for who in _WHO}
        return "\n".join([str(pids), *told, str(self.verdict)])

    def check(self) -> None:
        if not self.verdict.good:
            raise Broken(f"{self.verdict}")

    def run(self, count: int, progress: Callable[[str], None]) -> None:
        self.recovered(0)
        faults = self.faults()
        names: list[str] = []
        for number in range(count):
            if not names:
                # Every kind before any comes again, in an order that chance gives.
                names = sorted(faults)
                self._chance.shuffle(names)
            name = names.pop()
            time.sleep(self._chance.uniform(0.0, 0.4))
            faults[name]()
            lifted, began = time.time_ns(), time.monotonic()
            self.recovered(lifted)
            tally = self.tallies[name]
            tally.count += 1
            tally.seconds.append(time.monotonic() - began)
            progress(f"{number + 1:4}  {name:<22} {tally.seconds[-1]:6.2f} s")

    def finish(self) -> None:
        """The end in order: everything sealed is stored, and two verifiers say that it is whole."""
        self.place.finish()
        self.verdict = self.judge.judge()
        self.check()
        spool = self.place.spool
        undelivered = json.loads((spool / "export.json").read_text())
        stored = self.judge.folder
        run("verify", stored, "--key", self.place.path / "probe.key.pub")
        kept = [word for path in sorted(spool.glob("receipts-*")) for word in ("--receipts", path)]
        for where in (spool, stored):
            done = subprocess.run(
                sealwire(
                    *("verify", where, "--key", self.place.path / "probe.key.pub", *kept),
                    *("--collector", self.place.path / "collector.key.pub"),
                ),
                capture_output=True,
                text=True,
                check=False,
            )
            # Receipts cut by a kill are damaged files: then only the store itself is judged, above.
            if done.returncode and "damaged" not in done.stderr:
                raise Broken(done.stdout + done.stderr)
        last = max(self.judge.stored)
        if undelivered["trouble"] or last not in self.judge.acknowledged:
            raise Broken(f"the end was not delivered: {undelivered['trouble']!r}, up to {last}")


def table(campaign: Campaign, took: float) -> str:
    verdict = campaign.verdict
    lines = [f"{'fault':<24} {'times':>5} {'median':>9} {'worst':>9}   until stored again"]
    for name, tally in sorted(campaign.tallies.items()):
        median, worst = statistics.median(tally.seconds), max(tally.seconds)
        lines.append(f"{name:<24} {tally.count:>5} {median:>7.2f} s {worst:>7.2f} s")
    total = sum(tally.count for tally in campaign.tallies.values())
    lines += [
        f"{'all':<24} {total:>5} in {took:.0f} s",
        "",
        f"flows fed {campaign.place.load.flows:,}, stored {verdict.flows:,}; "
        f"segments {verdict.segments:,}, acknowledged {verdict.acknowledged:,}; events {verdict.events:,}",
        f"declared gaps: {verdict.gaps}, at most {verdict.declared:,} events",
        f"acknowledged and lost {verdict.acknowledged_lost}, stored twice {verdict.duplicates}, "
        f"unexplained gaps {verdict.unexplained}",
    ]
    return "\n".join(lines)


def conduct(path: Path, seed: int, count: int, rate: int, progress: Callable[[str], None]) -> Campaign:
    """A whole campaign in a new directory.  Raises Broken."""
    with placed(path, rate) as place:
        campaign = Campaign(place, seed)
        campaign.run(count, progress)
        campaign.finish()
    return campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--rate", type=int, default=1000, help="new flows a second")
    parser.add_argument("--keep", type=Path, help="work there, and leave it")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    began = time.monotonic()
    directory = args.keep or Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        campaign = conduct(directory, args.seed, args.faults, args.rate, lambda line: print(line, flush=True))
    except (Broken, subprocess.SubprocessError) as broken:
        print(f"BROKEN, seed {args.seed}, in {directory}: {broken}", file=sys.stderr)
        return 1
    print(table(campaign, time.monotonic() - began))
    if args.json:
        print(json.dumps({"seed": args.seed, **asdict(campaign.verdict)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
