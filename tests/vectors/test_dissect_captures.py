"""What flows are, beside what others say: captures, an independent JA4, truth files, nDPI, Zeek.

shared/data/probe/MANIFEST.md says where they come from and which of their values are to be trusted.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealwire.probe import Flow, read
from sealwire.probe.dissect.facts import Certainty, Fact, Protocol
from sealwire.probe.dissect.rare import DISSECTORS, TABLE
from sealwire.probe.settings import Settings
from tests.unit.probe.packets import TABLES
from tests.unit.probe.twins import same, walk
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

_NDPI = re.compile(
    r"\t\d+\t(TCP|UDP)\S* (\S+):(\d+) <?-> (\S+):(\d+) .*?\[proto: ([^\]]+)\].*?\[Confidence: ([^\]]*)\]"
)
#: nDPI's names by ours; what it calls NetBIOS is also SMB's session.
_SAME = {"smbv23": "smb", "smbv1": "smb"}


def named(shared_data: Path, name: str) -> Iterator[tuple[Flow, str, str]]:
    """Flows with payload, nDPI's master protocol and how it came to it."""
    found = {
        (ends(flow), flow.protocol): flow
        for flow in flows(shared_data / "probe" / name, tunnels=name == "vxlan.pcap")
    }
    for line in (shared_data / f"probe/expected/{name}.ndpi.out").read_text("utf-8").splitlines():
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
        if flow is not None and flow.forward_payload_bytes + flow.backward_payload_bytes:
            master = match[6].rpartition("/")[2].partition(".")[0].lower()
            yield flow, _SAME.get(master, master), match[7]


#: Flows we name otherwise, or not at all, and why: (capture, nDPI's name, its confidence, ours) -> how many.
EXPLAINED = {
    # CoAP on its own port, to /.well-known/core: nDPI goes by 17500, the client's port.
    ("coap_mqtt.pcap", "dropbox", "DPI", "coap"): 4,
    # One flow of keep-alives only, one way, not on MQTT's port.
    ("coap_mqtt.pcap", "mqtt", "DPI", ""): 1,
    # Damaged on purpose; nDPI goes by the port.
    ("fuzz-2006-06-26-2594.pcap", "ftp_control", "Match by port", ""): 11,
    ("fuzz-2006-06-26-2594.pcap", "dns", "DPI", ""): 3,
    ("fuzz-2006-06-26-2594.pcap", "dns", "Match by port", ""): 3,
    ("fuzz-2006-06-26-2594.pcap", "sip", "DPI", ""): 1,
    ("fuzz-2006-06-26-2594.pcap", "sip", "Match by port", ""): 1,
    ("fuzz-2006-06-26-2594.pcap", "rtp", "DPI", ""): 1,
    # Google's QUIC of before 2018, another protocol than RFC 9000's.
    ("http_ipv6.pcap", "quic", "DPI", ""): 1,
    ("http_ipv6.pcap", "quic", "Match by port", ""): 1,
    # What is in the NetBIOS session.
    ("smb_deletefile.pcap", "netbios", "DPI", "smb"): 1,
}


def test_names_are_those_of_ndpi_or_it_is_explained(shared_data: Path) -> None:
    agreed, others = 800, Counter[tuple[str, str, str, str]]()  # the generated mix agrees, see above
    right, certain_and_wrong = Counter[str](), []
    for path in sorted((shared_data / "probe/expected").glob("*.ndpi.out")):
        name = path.name.removesuffix(".ndpi.out")
        for flow, master, confidence in named(shared_data, name):
            ours = flow.application
            if ours == master or (not ours and master == "unknown"):
                agreed += 1
                right[ours] += 1
            else:
                others[name, master, confidence, ours] += 1
                if flow.facts.certainty is Certainty.CERTAIN and ours != "smb":
                    certain_and_wrong.append((name, master, ours))
    assert dict(others) == EXPLAINED
    assert certain_and_wrong == []
    assert agreed / (agreed + others.total()) >= 0.97
    for protocol, _, _ in TABLE:
        assert right[protocol] or protocol in ("smb", "rtp"), protocol


def test_no_dissector_in_python_takes_flows_of_another_capture(shared_data: Path) -> None:
    """False positives over all captures: what is certain must be in a capture that has the protocol."""
    homes = {
        "coap": {"coap_mqtt.pcap"},
        "mqtt": {"coap_mqtt.pcap", "mqtt.pcap"},
        "wireguard": {"wireguard.pcap"},
        "rdp": {"rdp.pcap"},
        "smb": {"smb_deletefile.pcap"},
        "modbus": {"modbus.pcap"},
        **{name: {"fuzz-2006-06-26-2594.pcap"} for name in ("sip", "dhcp", "netbios", "rtp")},
    }
    assert {dissector.application for dissector in DISSECTORS} == set(homes) == {row[0] for row in TABLE}
    for name in (*LISTED, *GENERATED):
        for flow in flows(shared_data / "probe" / name):
            if flow.application in homes:
                assert name in homes[flow.application], (name, flow.application)


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
