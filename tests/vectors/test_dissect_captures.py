"""What flows are, beside what others say: captures, an independent JA4, truth files, nDPI, Zeek.

shared/data/probe/MANIFEST.md says where they come from and which of their values are to be trusted.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sealwire.probe import Flow, read
from sealwire.probe.dissect.facts import Certainty, Fact, Protocol
from sealwire.probe.dissect.rare import DISSECTORS, ROWS, Row
from sealwire.probe.settings import Settings
from tests.unit.probe.packets import TABLES
from tests.unit.probe.twins import same, walk
from tests.vectors import protocols
from tests.vectors.test_probe_captures import GENERATED, LISTED

DISSECTED = Settings(dissect=True).without_timeouts()
SETTINGS = [
    DISSECTED,
    Settings(dissect=True, idle_timeout=0.5, active_timeout=2, linger=0.01, first_packets=5, tunnels=True),
    Settings(dissect=True, max_flows=7),
    Settings(dissect=True, max_dissection_bytes=65_536, tunnels=True),
]

End = tuple[Any, int]


def ends(flow: Flow) -> frozenset[End]:
    return frozenset(
        (ipaddress.ip_address(address), port)
        for address, port in ((flow.source, flow.source_port), (flow.destination, flow.destination_port))
    )


def flows(path: Path, **changes: Any) -> list[Flow]:
    return list(read(path, settings=DISSECTED, **changes))


HELLOS = [
    *("chrome-cloudflare-quic-with-secrets.pcapng", "dns_dot.pcap", "dtls13-cid.pcap", "dtls13-wolfssl.pcap"),
    *("dtls2.pcap", "dtls_certificate_fragments.pcap", "http_ipv6.pcap", "stun.pcap"),
    *("tls-handshake.pcapng", "tls12.pcap"),
]


@pytest.mark.parametrize("name", HELLOS)
def test_fingerprints_and_names_are_those_of_an_independent_reference(shared_data: Path, name: str) -> None:
    lines = (shared_data / f"probe/expected/{name}.clienthello.jsonl").read_text("utf-8").splitlines()
    found: dict[frozenset[End], list[dict[str, Any]]] = {}
    for flow in flows(shared_data / "probe" / name):
        found.setdefault(ends(flow), []).append(flow.facts.as_dict())
    seen = set()
    for hello in map(json.loads, lines):
        key = frozenset(
            (ipaddress.ip_address(hello[side]), hello[port])
            for side, port in (("src", "sport"), ("dst", "dport"))
        )
        if key in seen:
            continue  # what a flow is called follows from its first hello
        seen.add(key)
        assert (hello["ja4"], hello["sni"], hello["alpn"]) in [
            (facts.get("ja4"), facts.get("server_name"), facts.get("alpn_offered", []))
            for facts in found[key]
        ]
        cids = [facts["client_id"] for facts in found[key] if "client_id" in facts and "ja4" in facts]
        if hello["cid"] is not None and hello["transport"] == "udp":
            assert hello["cid"] in cids
    assert seen


def test_every_list_of_hellos_is_compared(shared_data: Path) -> None:
    listed = (shared_data / "probe/expected").glob("*.clienthello.jsonl")
    assert {path.name.removesuffix(".clienthello.jsonl") for path in listed} == set(HELLOS)


def test_a_generated_mix_is_recognised_whole(shared_data: Path) -> None:
    """Protocol, name, JA4, DNS type and answer, HTTP request: every flow's truth."""
    found = {flow.community_id: flow for flow in flows(shared_data / "probe/gen-mix-800.pcap")}
    truth = (shared_data / "probe/expected/gen-mix-800.truth.jsonl").read_text("utf-8").splitlines()
    assert len(truth) == len(found) == 800
    for line in map(json.loads, truth):
        flow = found[line["community_id"]]
        facts = flow.facts.as_dict()
        assert flow.application == line["app"].lower()
        assert facts.get("server_name") == (line.get("host") or None)
        assert facts.get("ja4") == line.get("ja4")
        for ours, theirs in (("http_method", "method"), ("url", "uri"), ("http_user_agent", "ua")):
            assert facts.get(ours) == line.get(theirs)
        if line["app"] == "DNS":
            flags = facts["flags"]
            assert isinstance(flags, int)
            assert (facts["rrtype"], flags & 15) == (line["qtype"], line["rcode"])
        assert flow.facts.certainty is (Certainty.CERTAIN if line["app"] else Certainty.NOT_MINE)


def test_dtls_13_is_read_as_such_with_its_connection_ids(shared_data: Path) -> None:
    ids = []
    for name in ("dtls13-wolfssl.pcap", "dtls13-cid.pcap"):
        for flow in flows(shared_data / "probe" / name):
            facts = flow.facts
            assert (facts.protocol, facts.version) == (Protocol.DTLS, 0xFEFC)
            ids.append((facts.raw(Fact.CLIENT_ID), facts.raw(Fact.SERVER_ID)))
            if facts.number(Fact.VERSION) is not None:
                # Zeek's ssl.log: cipher and curve of the three handshakes that were answered.
                assert (facts.number(Fact.CIPHER), facts.number(Fact.GROUP)) == (0x1301, 23)
    mine, theirs = b"I am a client CID", b"fancy server CID"
    assert Counter(ids) == {(None, None): 3, (mine, None): 1, (mine, theirs): 1, (theirs, None): 1}


def test_every_capture_of_dtls_13_is_recognised(shared_data: Path) -> None:
    with_ids = 0
    for path in sorted((shared_data / "dtls13/dtls13_captures").glob("*.pcap")):
        flow = max(flows(path), key=lambda flow: flow.packets)
        assert (flow.application, flow.facts.certainty) == ("dtls", Certainty.CERTAIN), path.name
        assert flow.facts.version == 0xFEFC, path.name
        has_ids = flow.facts.raw(Fact.SERVER_ID) is not None
        with_ids += has_ids
        assert has_ids == ("cid" in path.name), path.name
    assert with_ids == 4


def test_ssh_fingerprints_are_those_of_ndpi(shared_data: Path) -> None:
    text = (shared_data / "probe/expected/ssh.pcap.ndpi.out").read_text("utf-8")
    for ours, theirs in (("hassh", "HASSH-C"), ("hassh_server", "HASSH-S")):
        expected = {value.lower() for value in re.findall(rf"\[{theirs}: ([0-9A-F]+)\]", text)}
        assert {flow.facts.as_dict()[ours] for flow in flows(shared_data / "probe/ssh.pcap")} == expected


# --- names of protocols --------------------------------------------------------------------------


def test_names_are_those_of_others_or_it_is_explained(shared_data: Path) -> None:
    found = protocols.everything(shared_data)
    expected = {key: count for key, (count, _) in protocols.EXPLAINED.items()}
    assert dict(protocols.disagreements(found)) == expected
    agreed = len(found) - sum(expected.values())
    assert agreed / len(found) >= 0.97
    scores = protocols.scores(found)
    for row in ROWS:
        # nDPI calls SMB's session by what carries it.
        assert scores[row.protocol].right or row.protocol == "smb", row.protocol
        assert not scores[row.protocol].false or row.protocol in ("coap", "smb"), row.protocol


def test_the_page_is_what_the_captures_say(shared_data: Path) -> None:
    said = protocols.page(protocols.everything(shared_data), protocols.taken(shared_data))
    assert protocols.PAGE.read_text("utf-8") == said, "stale: python -m tests.vectors.protocols"


def test_every_dissector_in_python_has_a_row_and_takes_no_other_flows(shared_data: Path) -> None:
    """False positives over all captures: none but where the protocol is."""
    assert [row.protocol for row in ROWS] != []
    assert {dissector.application for dissector in DISSECTORS} == {row.protocol for row in ROWS}
    homes = {(capture, row.protocol) for row in ROWS for capture in row.captures}
    rare = {row.protocol for row in ROWS}
    for capture, name in protocols.taken(shared_data):
        assert name not in rare or (capture, name) in homes, (capture, name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.protocol)
def test_a_row_is_proved_by_a_capture_of_its_own(shared_data: Path, row: Row) -> None:
    for capture in row.captures:
        path = protocols.OWN / capture
        if not path.exists():
            path = shared_data / "probe" / capture
        named = [flow for flow in flows(path) if flow.application == row.protocol]
        assert named, capture
        told = {name for flow in named for name in detail_names(flow)}
        assert told <= set(row.details.split(", "))


def detail_names(flow: Flow) -> list[str]:
    details = flow.facts.as_dict().get("details", {})
    assert isinstance(details, dict)
    return list(details)


@pytest.mark.parametrize("name", [*LISTED, *GENERATED])
@pytest.mark.skipif(len(TABLES) == 1, reason="the compiled modules are not built")
def test_both_desks_agree_byte_for_byte(shared_data: Path, name: str) -> None:
    capture = (shared_data / "probe" / name).read_bytes()[:500_000]
    for settings in SETTINGS:
        walked = same(capture, settings)
        assert walked.counters["dissection_bytes"] == 0
        assert walked.counters["dissection_peak"] <= settings.max_dissection_bytes


@pytest.mark.skipif(len(TABLES) == 1, reason="the compiled modules are not built")
def test_both_desks_agree_on_dtls_13(shared_data: Path) -> None:
    for path in sorted((shared_data / "dtls13").rglob("*.pcap")):
        same(path.read_bytes(), DISSECTED)


@pytest.mark.parametrize("name", ["gen-mix-800.pcap", "tls-handshake.pcapng", "fuzz-2006-06-26-2594.pcap"])
def test_neither_key_nor_budget_nor_workers_change_an_answer(shared_data: Path, name: str) -> None:
    path = shared_data / "probe" / name
    settings = Settings(dissect=True, idle_timeout=0.05, linger=0.02)
    reference = walk(TABLES[0], path.read_bytes(), settings)
    other = walk(TABLES[0], path.read_bytes(), settings, key=bytes(range(16)), budget=77)
    assert (other.rows, other.facts) == (reference.rows, reference.facts)

    def told(workers: int) -> list[tuple[int, int, bytes]]:
        batches = read(path, settings=settings, workers=workers).batches()
        return [(event.time, event.first_packet, event.facts.block) for b in batches for event in b.events()]

    def known(workers: int) -> list[tuple[int, bytes]]:
        return [
            (flow.first_packet, flow.facts_block) for flow in read(path, settings=settings, workers=workers)
        ]

    assert told(1)
    assert told(1) == told(2) == told(3)
    assert known(1) == known(2) == known(3)
