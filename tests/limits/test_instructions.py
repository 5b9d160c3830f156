"""What a hostile datagram costs the gate in instructions: yardstick 3 of the attacks, on any machine alike.

callgrind counts what runs inside Sieve.sift, hashes and MACs and the objects of answers among it.  It
shows programs a processor without SHA instructions, so a hash costs more here than it does live.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sealwire.record.protect import COMPILED
from tests import certificates
from tests.limits.hostile_rows import EARLY, ESTABLISHED, WRITTEN

COUNT = 6_400
#: Instructions a datagram, an eighth above what was measured with OpenSSL 3.0 on x86-64.
BOUNDS = {
    "answered": 22_500,
    "silenced": 4_100,
    "cookies": 13_200,
    "pieces": 3_500,
    "garbage": 1_850,
}


@pytest.mark.long
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.skipif(not COMPILED, reason="the compiled gate is not built")
@pytest.mark.requirement("9147-11-1")
@pytest.mark.parametrize("kind", list(BOUNDS))
def test_instructions_of_a_hostile_datagram(kind: str, tmp_path: Path) -> None:
    identity = certificates.server()
    out = tmp_path / "callgrind.out"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    command += ["--toggle-collect=__pyx_pw_8sealwire_4dtls_5_gate_5Sieve_*sift"]
    script = str(Path(__file__).with_name("hostile_datagrams.py"))
    command += [sys.executable, script, kind, str(COUNT), str(identity.certfile), str(identity.keyfile)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
    assert found is not None
    each = int(found[1]) / COUNT
    print(f"{kind}: {each:.0f} instructions")
    # If the toggle met nothing there would be none.
    assert 300 < each <= BOUNDS[kind]


# --- the attacks of tests/adversary ---------------------------------------------------------------

#: Instructions for each datagram of an attack's: before its handshake is over, and under application keys
#: after it; None where it has none.  Half above what was measured, its share of a handshake included.
ROWS: dict[str, tuple[int | None, int | None]] = {
    "amp_1_spoofed_hellos": (290_000, None),
    "amp_2_and_3_an_answer_without_a_cookie_to_a_silent_victim": (6_200_000, None),
    "amp_4_cookies_of_others[elsewhere]": (190_000, None),
    "amp_4_cookies_of_others[expired]": (190_000, None),
    "amp_4_cookies_of_others[other hello]": (1_300_000, None),
    "amp_4_cookies_of_others[retired]": (190_000, None),
    "amp_5_cookies_of_any_size": (170_000, None),
    "amp_6_alerts_to_strangers_are_few": (12_000, None),
    "amp_6_nothing_answers_garbage[garbage]": (9_100, 48_000),
    "amp_6_nothing_answers_garbage[records]": (None, 17_000),
    "amp_7_a_download_is_not_moved_to_a_victim": (2_100_000, 390_000),
    "amp_8_path_challenges": (2_100_000, 310_000),
    "amp_9_guessed_and_stale_answers": (2_100_000, 290_000),
    "dos_1_half_open_from_real_addresses": (900_000, 520_000),
    "dos_2_slow_handshakes[0.016666666666666666]": (1_500_000, None),
    "dos_2_slow_handshakes[1.0]": (200_000, None),
    "dos_3_a_message_of_16_megabytes[Announcer]": (1_900_000, None),
    "dos_3_a_message_of_16_megabytes[Giant]": (2_000_000, 450_000),
    "dos_4_messages_far_ahead": (2_000_000, 300_000),
    "dos_5_crumbs[Crumbler]": (2_000_000, 400_000),
    "dos_5_crumbs[Zeros]": (2_000_000, 76_000),
    "dos_6_records_of_epochs_to_come": (2_400_000, 36_000),
    "dos_7_certificates_too_large_and_too_many[1-60000-42]": (330_000, None),
    "dos_7_certificates_too_large_and_too_many[2-40000-47]": (120_000, None),
    "dos_7_certificates_too_large_and_too_many[1000-40-42]": (360_000, None),
    "dos_8_a_compressed_certificate_that_unpacks_for_ever": (390_000, None),
    "dos_9_key_updates": (1_200_000, 740_000),
    "dos_10_post_handshake_messages[Certifier-10]": (2_100_000, 620_000),
    "dos_10_post_handshake_messages[IdAsker-52]": (2_100_000, 450_000),
    "dos_10_post_handshake_messages[IdGiver-None]": (2_100_000, 640_000),
    "dos_11_acknowledgements[Acker]": (2_200_000, 390_000),
    "dos_11_acknowledgements[EmptyAcker]": (2_200_000, 300_000),
    "dos_11_acknowledgements[FutureAcker]": (2_200_000, 450_000),
    "dos_11_acknowledgements[LongAcker]": (2_100_000, 1_800_000),
    "dos_12_empty_records": (2_100_000, 270_000),
    "dos_13_early_data_nobody_can_open": (2_500_000, 67_000),
    "dos_14_reconnecting_without_end": (2_100_000, 510_000),
    "dos_15_no_log_lines": (41_000, 28_000),
    "dos_16_forged_records_for_a_known_peer[address]": (None, 35_000),
    "dos_16_forged_records_for_a_known_peer[id]": (2_200_000, 140_000),
    "dos_17_stuffed_hellos": (190_000, None),
}


def inclusive(profile: str, function: str) -> int:
    """Instructions inside a function, and whatever it called, of a file of callgrind's."""
    names: dict[str, str] = {}
    current = ""
    total = 0
    for line in profile.splitlines():
        if found := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?", line):
            called, number, name = found.groups()
            names.setdefault(number, name)
            current = current if called else names[number]
        elif current == function and re.match(r"[-+*\d]", line):
            total += int(line.split()[1])
    return total


@pytest.mark.long
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.skipif(not COMPILED, reason="the compiled gate is not built")
@pytest.mark.requirement("9147-11-1")
def test_instructions_of_each_attack(tmp_path: Path) -> None:
    """Every attack of tests/adversary/test_floods.py, on virtual time, with its honest peer."""
    out, rows = tmp_path / "callgrind.out", tmp_path / "rows.json"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={WRITTEN}"]
    command += [f"--toggle-collect={function}" for function in (EARLY, ESTABLISHED)]
    command += [sys.executable, "-m", "tests.limits.hostile_rows", str(rows)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    over = []
    measured: dict[str, tuple[int | None, int | None]] = {}
    for number, row in enumerate(json.loads(rows.read_text()), 1):
        profile = Path(f"{out}.{number}").read_text()
        name = row["test"].removeprefix("test_")
        early, established = (
            inclusive(profile, function) // row[function] if row[function] else None
            for function in (EARLY, ESTABLISHED)
        )
        if (early, established) == (None, None):
            continue  # An attack on clients, which no endpoint sees.
        measured[name] = (early, established)
        print(f"{name}: {early} before, {established} after")
        for value, bound in zip(measured[name], ROWS.get(name, (None, None)), strict=True):
            if value is not None and (bound is None or not 300 < value <= bound):
                over.append(f"{name}: {value}, bound {bound}")
    assert not over
    assert measured.keys() == ROWS.keys()
