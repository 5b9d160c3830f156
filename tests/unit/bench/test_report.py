"""The page and the Markdown: whole, self-contained, and nothing invented for who was not there."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from sealwire.bench import plots, report, tables
from sealwire.bench.compare import compare
from sealwire.bench.measurement import Check, Figure, Kind, Promise, Role
from sealwire.bench.results import Entry, Measured, Result
from tests.unit.bench import made

_VOID = {"meta"}


class _Balance(HTMLParser):
    """Complains about a tag that is not closed, and notes what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def measured() -> Result:
    """A result with every kind of contender, a promise kept and one broken."""
    latency = dataclasses.replace(made.reading(2.5), quantiles={"0": 1.0, "50": 2.5, "100": 9.0})
    figures = (
        Figure("", "us", Kind.TIME, "CPU <per> record", Promise(100.0, "below 100 us")),
        Figure("wire", "B", Kind.MEMORY, "bytes", Promise(70.0, "below 70 B")),
    )
    both = tuple(
        dataclasses.replace(made.reading(5.0 + n / 10), values={"": 5.0 + n / 10, "wire": 86.0})
        for n in range(5)
    )
    rows = (
        Measured(
            "record.seal.64",
            "seal",
            figures,
            (
                Entry("sealwire", Role.OURS, "measured", "", "", both),
                Entry("sealwire without crypto", Role.WITHOUT_CRYPTO, "measured", "", "", both),
                Entry("good", Role.RIVAL, "measured", "", "good 1.0", (made.reading(7.25),) * 5),
                Entry("away", Role.RIVAL, "not present", "needs <away>", "", ()),
                Entry("broken", Role.RIVAL, "failed", "it ended by signal SIGSEGV", "", ()),
                Entry("yardstick", Role.YARDSTICK, "measured", "", "", (made.reading(40.0),) * 5),
            ),
            (Check("sabotage", False, "the row & nothing"), Check("clock, sealwire", True, "long enough")),
        ),
        Measured(
            "handshake.udp.full",
            "handshake, full",
            (Figure("", "ms", Kind.TIME, "median latency"),),
            (Entry("sealwire", Role.OURS, "measured", "", "", (latency,) * 5),),
            (),
        ),
    )
    return dataclasses.replace(made.run("a"), measured=rows)


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    page = report.html(measured())
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert balance.loads == []
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_plot_is_xml_that_stands_for_itself() -> None:
    found = re.findall(r"<svg.*?</svg>", report.html(measured(), [measured()]), re.DOTALL)
    assert len(found) >= 3
    for svg in found:
        root = ElementTree.fromstring(svg)
        assert root.find("title") is not None
        for element in root.iter():
            for name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height"):
                value = element.get(name, "0")
                assert value == "100%" or float(value) >= -1, (name, value)


def test_promised_measured_and_rivals_beside_each_other() -> None:
    text = report.markdown(measured())
    (line,) = (line for line in text.splitlines() if line.startswith("| record.seal.64 |"))
    assert [cell.strip() for cell in line.split("|")[4:]] == [
        "5.2 ±2.9%",
        "7.25",
        "below 100 us: kept",
        "",
    ]
    assert "below 70 B: NOT kept" in text
    assert "away: not present (needs <away>)" in text
    assert "broken, record.seal.64: failed (it ended by signal SIGSEGV)" in text
    assert "record.seal.64, sabotage: the row & nothing" in text
    assert "without crypto" not in text.partition("## The sabotage test")[0]
    assert "yardstick" not in text


def test_what_failed_its_check_is_said_first() -> None:
    page = report.html(measured())
    assert page.index("cannot be believed") < page.index("<h2>")
    assert "the row &amp; nothing" in page
    good = dataclasses.replace(
        measured(), measured=tuple(dataclasses.replace(one, checks=()) for one in measured().measured)
    )
    assert "Every self-check passed" in report.html(good)


def test_an_injected_slow_down_is_never_hidden() -> None:
    slowed = dataclasses.replace(measured(), hooks={"slow_down": 0.15})
    assert "15%: no figures of this software" in report.markdown(slowed)


def test_the_table_of_a_comparison_has_alarms_first() -> None:
    exact = made.World(within=0.001, between=0.001)
    comparison = compare(made.run("a", exact), made.run("b", exact, {"time.7": 1.5}))
    table = tables.change_table(comparison)
    assert table.cells[1][0] == "time.7"
    assert table.cells[1][-1] == "worse"
    assert tables.as_markdown(table)[0].startswith("| row |")
    widths = {len(line) for line in tables.as_text(table)[1:4]}
    assert len(widths) <= 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.2543, "0.254"), (5.0, "5"), (86.4, "86.4"), (523.7, "524"), (9445117.6, "9,445,118")],
)
def test_numbers(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_a_distribution_of_one_value_can_be_drawn() -> None:
    ElementTree.fromstring(plots.distribution("one", "ms", {"a": {"0": 3.0, "50": 3.0, "100": 3.0}}))
    ElementTree.fromstring(plots.bars("none", "B", [plots.Group("g", (plots.Bar("b", 0.0, 0.0, 0.0, 0),))]))


def test_magnitudes_mark_what_was_promised() -> None:
    groups = [
        plots.Group("a", (plots.Bar("b", 0.5, 0.5, 0.5, 0),), promised=10.0),
        plots.Group("c", (plots.Bar("b", 300.0, 290.0, 310.0, 0),)),
    ]
    root = ElementTree.fromstring(plots.magnitudes("all", "us", groups))
    marks = [line for line in root.iter("line") if line.get("stroke") == "#c00"]
    first, second = (float(bar.get("width", "0")) for bar in root.iter("rect"))
    assert len(marks) == 1
    assert 0 < first < float(marks[0].get("x1", "0")) < 360 + second
    ElementTree.fromstring(
        plots.magnitudes("nothing", "B", [plots.Group("a", (plots.Bar("b", 0, 0, 0, 0),))])
    )
