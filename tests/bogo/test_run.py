"""What tests/bogo/README.md says of the two lists is what the config disables.  The runner is not here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bogo import run

README = Path(run.HERE / "README.md").read_text("utf-8")
NAMES = run.shared_names()


@pytest.mark.skipif(
    not NAMES, reason="absent: shared data (set SEALWIRE_SHARED or place it beside the repository)"
)
def test_the_readme_lists_what_is_disabled_and_why() -> None:
    if not NAMES:
        pytest.skip("absent: shared data (set SEALWIRE_SHARED or place it beside the repository)")
    assert set(NAMES) == set(run.LISTS)
    for title, names in NAMES.items():
        _, _, rest = README.partition(f"### {title}\n")
        section = rest.partition("###")[0].partition(run.END)[0]
        counts = re.search(r"(\d+) names: (\d+) passed, 0 failed, (\d+) disabled, 0 unimplemented\.", section)
        assert counts is not None
        disabled = [name for name in names if run.reason_for(name)]
        passed = len(names) - len(disabled)
        assert list(map(int, counts.groups())) == [len(names), passed, len(disabled)]
        rows = re.findall(r"^\| (\d+) \| (.*) \| `(.*)` \|$", section, re.MULTILINE)
        assert sum(int(count) for count, _, _ in rows) == len(disabled)
        for _, reason, example in rows:
            assert run.reason_for(example) == reason


def test_counts_go_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{run.BEGIN}\n\nof yesterday\n\n{run.END}\n\nafter\n")
    outcomes = {"PASSED": ["a", "b"], "DISABLED": ["GREASE-ECH", "RenegotiationInfo-Forbidden-TLS13"]}
    for _ in range(2):
        run.write_report(page, [run.table("a list", 4, outcomes)])
        text = page.read_text()
        assert text.startswith(f"before\n\n{run.BEGIN}\n\n### a list\n")
        assert text.endswith(f"\n\n{run.END}\n\nafter\n")
        assert "4 names: 2 passed, 0 failed, 2 disabled, 0 unimplemented." in text
        assert "yesterday" not in text
    assert "| 1 | Encrypted ClientHello is out of scope for now | `GREASE-ECH` |" in text
