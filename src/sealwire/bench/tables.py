"""Results as tables: the same cells for the terminal, for Markdown and for the page.

A rival that was not there has a dash and, below the table, the reason; never a number of another day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sealwire.bench.compare import Comparison, Verdict
from sealwire.bench.measurement import Role
from sealwire.bench.results import Entry, Result, Row
from sealwire.bench.statistics import Summary

GROUPS: Mapping[str, str] = {
    "record": "Records in memory",
    "handshake": "Handshakes",
    "memory": "Memory of a server",
    "connections": "Many connections, most of them silent",
    "crypto": "Primitives",
    "udp": "Plain UDP, the floor",
    "bulk": "Bulk over loopback UDP",
    "copies": "Copies between application and kernel",
    "latency": "Round trips over loopback",
    "workers": "Workers on one port",
    "changes": "Changes under load",
    "stcp": "Requests and answers over STCP",
}
_SHOWN = (Role.OURS, Role.RIVAL, Role.CRYPTO_ALONE)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text; the first row is the heading, the first column names the row."""

    title: str
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def group_of(row: Row) -> str:
    return row.name.partition(".")[0]


def tables(result: Result) -> list[Table]:
    """One table per group that was measured, in order."""
    rows = result.rows()
    names = list(dict.fromkeys(group_of(row) for row in rows))
    return [_table(name, [row for row in rows if group_of(row) == name]) for name in names]


def _table(group: str, rows: Sequence[Row]) -> Table:
    contenders = list(
        dict.fromkeys(
            entry.name
            for row in rows
            for entry in row.entries
            if entry.role in _SHOWN and row.summary(entry) is not None
        )
    )
    heading = ("row", "what", "unit", *contenders, "promised")
    cells = [heading]
    for row in rows:
        by_name = {entry.name: entry for entry in row.entries}
        if not any(_cell(row, by_name.get(name)) for name in contenders) and not row.ours.reason:
            continue
        promised = row.figure.promised
        cells.append(
            (
                row.name,
                row.title,
                row.figure.unit,
                *(_cell(row, by_name.get(name)) or "-" for name in contenders),
                _promise(row) if promised is not None else "",
            )
        )
    return Table(GROUPS.get(group, group), tuple(cells), tuple(_absences(rows)))


def _promise(row: Row) -> str:
    promised = row.figure.promised
    assert promised is not None
    ours = row.summary(row.ours)
    if ours is None:
        return promised.words
    return f"{promised.words}: {'kept' if promised.kept(row.figure.kind, ours.median) else 'NOT kept'}"


def _cell(row: Row, entry: Entry | None) -> str:
    summary = row.summary(entry) if entry is not None else None
    if summary is None:
        return "failed" if entry is not None and entry.status == "failed" else ""
    return number(summary.median) + spread(summary)


def spread(summary: Summary) -> str:
    """The spread of the turns; nothing for what did not vary."""
    return f" ±{summary.spread:.1%}" if summary.spread >= 0.0005 else ""


def number(value: float) -> str:
    """Three or more digits, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _absences(rows: Sequence[Row]) -> list[str]:
    """Why contenders have no figures, each reason once; failures with their row."""
    found: dict[str, None] = {}
    for row in rows:
        if row.figure.name:
            continue
        for entry in row.entries:
            if entry.status == "not present" and entry.role in _SHOWN:
                found[f"{entry.name}: not present ({entry.reason})"] = None
            elif entry.status == "failed":
                found[f"{entry.name}, {row.name}: failed ({entry.reason})"] = None
    return list(found)


def conditions(result: Result) -> list[tuple[str, str]]:
    """Under which conditions the figures were made, for people."""
    machine, software, scale = result.machine, result.software, result.scale
    changed = " and uncommitted changes" if software.get("changed_since") else ""
    cpus = result.conditions.get("cpus") or [None, None]
    pinned = "not pinned" if cpus[0] is None else f"pinned to CPUs {cpus[0]} and {cpus[1]}"
    before, after = (result.conditions.get(f"load_{when}", 0) for when in ("before", "after"))
    facts = [
        ("machine", f"{machine.get('cpu')}, {machine.get('cpus')} CPUs, {machine.get('memory_gib')} GiB"),
        ("kernel", f"{machine.get('kernel')}, {machine.get('architecture')}"),
        ("sealwire", f"{software.get('sealwire')}, commit {str(software.get('commit'))[:12]}{changed}"),
        ("record protection", f"{software.get('record_protection')}"),
        ("interpreter", f"{software.get('python')}"),
        ("OpenSSL of the interpreter", f"{software.get('openssl_interpreter')}"),
        (
            f"OpenSSL of cryptography {software.get('cryptography')}",
            f"{software.get('openssl_cryptography')}",
        ),
        (
            "measured",
            f"{result.created}, {scale.get('name')}: {scale.get('runs')} turns of"
            f" {scale.get('seconds')} s each, in turns, {pinned}",
        ),
        ("load of the machine", f"{before:.2f} before, {after:.2f} after"),
    ]
    if result.hooks.get("slow_down"):
        facts.append(("injected slow-down", f"{result.hooks['slow_down']:.0%}: no figures of this software"))
    rivals = {
        f"{entry.name}: {entry.what}"
        for one in result.measured
        for entry in one.entries
        if entry.what and entry.status == "measured"
    }
    facts += [("rival", rival) for rival in sorted(rivals)]
    return facts


def change_table(comparison: Comparison) -> Table:
    """What a comparison found, alarms first."""
    order = {Verdict.WORSE: 0, Verdict.BETTER: 1, Verdict.SAME: 2}
    cells: list[tuple[str, ...]] = [("row", "unit", "old", "new", "change", "machine", "p", "verdict")]
    cells += [
        (
            change.row,
            change.unit,
            number(change.old),
            number(change.new),
            f"{change.change:+.1%}",
            f"{change.machine:+.1%}" if change.machine else "",
            f"{change.p:.2g}",
            change.verdict,
        )
        for change in sorted(comparison.changes, key=lambda one: order[one.verdict])
    ]
    return Table("Compared", tuple(cells), (*comparison.notes, *comparison.skipped))


def as_text(table: Table, width: int = 0) -> list[str]:
    """Aligned columns for a terminal; the column "what" is left out where it would not fit."""
    cells = table.cells
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    if width and sum(widths) + 2 * len(widths) > width and cells[0][1] == "what":
        cells = tuple((row[0], *row[2:]) for row in cells)
        widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    return [table.title, *lines, *(f"  {note}" for note in table.notes)]


def as_markdown(table: Table, texts: int = 2) -> list[str]:
    """A pipe table and its notes; columns from `texts` on are figures."""
    heading, *rows = table.cells
    lines = [_pipes(heading), _pipes(["---" if n < texts else "---:" for n in range(len(heading))])]
    lines += [_pipes(row) for row in rows]
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return lines


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
