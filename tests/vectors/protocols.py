"""How right the names of protocols are: flows with payload beside what others say they are.

    python -m tests.vectors.protocols           writes docs/probe/accuracy.md and prints it

The others: nDPI's result files and the truth of the generated mix (shared/data/probe), captures of
DTLS 1.3 stacks (shared/data/dtls13), and captures of Debian's servers and clients (tests/data/probe),
whose files say what is in them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealwire.probe import Flow, read
from sealwire.probe.dissect.facts import Certainty
from sealwire.probe.dissect.rare import ROWS
from sealwire.probe.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/probe/accuracy.md"
OWN = ROOT / "tests/data/probe"
DISSECTED = Settings(dissect=True).without_timeouts()

End = tuple[Any, int]

_NDPI = re.compile(
    r"\t\d+\t(TCP|UDP)\S* (\S+):(\d+) <?-> (\S+):(\d+) .*?\[proto: ([^\]]+)\].*?\[Confidence: ([^\]]*)\]"
)
#: nDPI's names by ours.
_SAME = {"smbv23": "smb", "smbv1": "smb", "unknown": ""}

#: Flows we name otherwise, or not at all, and why: capture, their name, how nDPI came to it, ours.
EXPLAINED: dict[tuple[str, str, str, str], tuple[int, str]] = {
    ("coap_mqtt.pcap", "dropbox", "DPI", "coap"): (
        *(4, "CoAP on its own port, to /.well-known/core: nDPI goes by 17500, the client's port"),
    ),
    ("coap_mqtt.pcap", "mqtt", "DPI", ""): (
        *(1, "one flow of keep-alives only, one way, not on MQTT's port"),
    ),
    ("fuzz-2006-06-26-2594.pcap", "ftp_control", "Match by port", ""): (
        *(11, "damaged on purpose, and FTP is none of ours; nDPI goes by the port"),
    ),
    ("fuzz-2006-06-26-2594.pcap", "dns", "DPI", ""): (3, "damaged on purpose: no header of a question"),
    ("fuzz-2006-06-26-2594.pcap", "dns", "Match by port", ""): (
        3,
        "damaged on purpose; nDPI goes by the port",
    ),
    ("fuzz-2006-06-26-2594.pcap", "sip", "DPI", ""): (1, "damaged on purpose: the first line is none"),
    ("fuzz-2006-06-26-2594.pcap", "sip", "Match by port", ""): (
        1,
        "damaged on purpose; nDPI goes by the port",
    ),
    ("fuzz-2006-06-26-2594.pcap", "rtp", "DPI", ""): (1, "numbers that do not go up"),
    ("http_ipv6.pcap", "quic", "DPI", ""): (
        1,
        "Google's QUIC of before 2018, not RFC 9000's",
    ),
    ("http_ipv6.pcap", "quic", "Match by port", ""): (1, "the same; nDPI goes by the port"),
    ("smb_deletefile.pcap", "netbios", "DPI", "smb"): (1, "SMB is what is in the NetBIOS session"),
}

#: What is in our own captures, by file; of rtp.pcap by the sender's port.
CONTENT = {
    **{"postgresql.pcap": "pgsql", "kerberos.pcap": "krb5"},
    **{f"{name}.pcap": name for name in ("ntp", "snmp", "redis", "mysql", "ldap", "openvpn", "sip", "dnp3")},
    **{"bittorrent.pcap": "bittorrent"},
}


def ends(flow: Flow) -> frozenset[End]:
    return frozenset(
        (ipaddress.ip_address(address), port)
        for address, port in ((flow.source, flow.source_port), (flow.destination, flow.destination_port))
    )


@dataclass
class Named:
    """One flow with payload: where, what it is to others and how they came to it, what it is to us."""

    capture: str
    truth: str
    means: str
    flow: Flow

    @property
    def ours(self) -> str:
        return self.flow.application


def by_ndpi(shared: Path, name: str) -> Iterator[Named]:
    """Flows of a capture by nDPI's result file."""
    found = {
        (ends(flow), flow.protocol): flow
        for flow in read(shared / "probe" / name, settings=DISSECTED, tunnels=name == "vxlan.pcap")
    }
    for line in (shared / f"probe/expected/{name}.ndpi.out").read_text("utf-8").splitlines():
        match = _NDPI.match(line)
        if match is None:
            continue
        try:
            key = frozenset(
                (ipaddress.ip_address(match[at].strip("[]")), int(match[at + 1])) for at in (2, 4)
            )
        except ValueError:
            continue  # it writes some IPv6 addresses wrong
        flow = found.get((key, {"TCP": 6, "UDP": 17}[match[1]]))
        if flow is not None and _has_payload(flow):
            master = match[6].rpartition("/")[2].partition(".")[0].lower()
            yield Named(name, _SAME.get(master, master), match[7], flow)


def by_truth(shared: Path) -> Iterator[Named]:
    """The generated mix."""
    name = "gen-mix-800.pcap"
    lines = (shared / "probe/expected/gen-mix-800.truth.jsonl").read_text("utf-8").splitlines()
    truth = {line["community_id"]: line["app"].lower() for line in map(json.loads, lines)}
    for flow in read(shared / "probe" / name, settings=DISSECTED):
        if _has_payload(flow):
            yield Named(name, truth[flow.community_id], "truth", flow)


def by_stack(shared: Path) -> Iterator[Named]:
    """The captures of DTLS 1.3 stacks: one connection each."""
    for path in sorted((shared / "dtls13/dtls13_captures").glob("*.pcap")):
        for flow in read(path, settings=DISSECTED):
            if _has_payload(flow):
                yield Named("dtls13_captures", "dtls", "truth", flow)


def by_file() -> Iterator[Named]:
    """Our own captures."""
    for path in sorted(OWN.glob("*.pcap")):
        for flow in read(path, settings=DISSECTED):
            if _has_payload(flow):
                truth = CONTENT.get(path.name) or ("rtcp" if flow.destination_port % 2 else "rtp")
                yield Named(path.name, truth, "truth", flow)


def _has_payload(flow: Flow) -> bool:
    return flow.forward_payload_bytes + flow.backward_payload_bytes > 0


def everything(shared: Path) -> list[Named]:
    """All flows anybody has a name for, or says that nobody has."""
    found: list[Named] = []
    for path in sorted((shared / "probe/expected").glob("*.ndpi.out")):
        found += by_ndpi(shared, path.name.removesuffix(".ndpi.out"))
    return [*found, *by_truth(shared), *by_stack(shared), *by_file()]


@dataclass
class Score:
    """Flows of one protocol: named as others do, named so by us alone, by them alone."""

    right: int = 0
    certain: int = 0
    false: int = 0
    missed: int = 0
    captures: set[str] = field(default_factory=set)


def scores(flows: list[Named]) -> dict[str, Score]:
    """By protocol; what nobody has a name for is not counted."""
    found: dict[str, Score] = {}
    for one in flows:
        if one.ours == one.truth:
            if one.truth:
                score = found.setdefault(one.truth, Score())
                score.right += 1
                score.certain += one.flow.facts.certainty is Certainty.CERTAIN
                score.captures.add(one.capture)
            continue
        if one.ours:
            found.setdefault(one.ours, Score()).false += 1
        if one.truth:
            found.setdefault(one.truth, Score()).missed += 1
    return found


def taken(shared: Path) -> Counter[tuple[str, str]]:
    """Flows by capture and what they are taken for, over all captures there are."""
    paths = [*(shared / "probe").glob("*.pcap*"), *(shared / "dtls13/dtls13_captures").glob("*.pcap")]
    return Counter(
        (path.name, flow.application)
        for path in (*paths, *OWN.glob("*.pcap"))
        for flow in read(path, settings=DISSECTED)
    )


def disagreements(flows: list[Named]) -> Counter[tuple[str, str, str, str]]:
    return Counter((one.capture, one.truth, one.means, one.ours) for one in flows if one.ours != one.truth)


def _part(n: int, of: int) -> str:
    return f"{100 * n / of:.1f} %" if of else "-"


def page(flows: list[Named], seen: Counter[tuple[str, str]]) -> str:
    """The page, whole."""
    agreed = sum(one.ours == one.truth for one in flows)
    lines = [
        "# How right the names of protocols are",
        "",
        "Written by `python -m tests.vectors.protocols`; a test says when it is stale. Counted are flows",
        "that carry payload, beside what others say they are: nDPI 4.11's master protocol, the truth of a",
        "generated mix, captures of DTLS 1.3 stacks, and captures of Debian's own servers and clients. What",
        "others have no name for, and we have none for either, counts as agreed.",
        "",
        f"**{agreed} of {len(flows)} flows agree: {_part(agreed, len(flows))}.**",
        "",
        "| protocol | right | of them certain | false | missed | precision | recall | seen in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, score in sorted(scores(flows).items()):
        right = score.right
        parts = _part(right, right + score.false), _part(right, right + score.missed)
        where = ", ".join(sorted(score.captures)[:4]) + (" ..." if len(score.captures) > 4 else "")
        counts = (right, score.certain, score.false, score.missed, *parts, where)
        lines.append(f"| `{name}` | " + " | ".join(map(str, counts)) + " |")
    lines += [
        "",
        "## Every disagreement",
        "",
        "| capture | flows | theirs | by | ours | why |",
        "|---|---|---|---|---|---|",
    ]
    for key, count in sorted(disagreements(flows).items()):
        capture, truth, means, ours = key
        why = EXPLAINED.get(key, (0, "not explained"))[1]
        lines.append(f"| {capture} | {count} | {truth or '-'} | {means} | {ours or '-'} | {why} |")
    lines += [
        "",
        "## Rare protocols",
        "",
        "What the dissectors in Python tell, and what each is proved on. False positives are flows of other",
        f"captures that are taken for it, of {len({capture for capture, _ in seen})} captures in all.",
        "",
        "| protocol | details | proved on | flows there | false positives elsewhere |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        there = sum(seen[capture, row.protocol] for capture in row.captures)
        elsewhere = sum(n for (_, name), n in seen.items() if name == row.protocol) - there
        lines.append(
            f"| `{row.protocol}` | {row.details} | {', '.join(row.captures)} | {there} | {elsewhere} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    shared = Path(os.environ.get("SEALWIRE_SHARED") or ROOT.parent / "shared") / "data"
    if not shared.is_dir():
        print("the shared data is not here: set SEALWIRE_SHARED", file=sys.stderr)
        return 3
    text = page(everything(shared), taken(shared))
    PAGE.write_text(text, "utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
