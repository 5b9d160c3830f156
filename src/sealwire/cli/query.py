"""`sealwire query`: questions in SQL to what a collector stored."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError

if TYPE_CHECKING:
    from sealwire.probe.store.query import Answer, Questions

#: Rows of a table; CSV and JSON have no end.
_ROWS = 1000
#: Characters of a table's column.
_WIDTH = 64


def store_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="the collector's directory (default: $SEALWIRE_STORE)"
    )


def store_of(args: argparse.Namespace) -> Path:
    """The store that is asked.  Raises Failure where none is named."""
    place = args.store or os.environ.get("SEALWIRE_STORE")
    if not place:
        raise Failure(Exit.USAGE, "no store is named", "give --store DIR or set SEALWIRE_STORE")
    if not Path(place).is_dir():
        raise Failure(Exit.ENVIRONMENT, f"there is no directory {place}", "check --store")
    return Path(place)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sql", nargs="?", metavar="SQL", help='a question, such as "from top_talkers limit 10"'
    )
    store_option(parser)
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), help="how the answer is written (default: table)"
    )
    parser.add_argument("--csv", action="store_true", help="the same as --format csv")
    parser.add_argument(
        "--tables", action="store_true", help="list the tables, ready views and their columns"
    )
    parser.add_argument(
        "--compacted", action="store_true", help="leave out what is stored but not compacted yet"
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="give up after so many seconds")
    parser.add_argument("--memory", type=int, metavar="MB", default=1024, help="most memory (default: 1024)")
    parser.add_argument(
        "--rows", type=int, metavar="N", default=_ROWS, help=f"most rows of a table (default: {_ROWS})"
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    if (args.sql is None) != args.tables:
        raise Failure(
            Exit.USAGE, "a question or --tables", 'try: sealwire query "from protocols" --store DIR'
        )
    if args.memory < 64 or args.rows < 1 or (args.timeout is not None and args.timeout <= 0):
        raise Failure(Exit.USAGE, "--memory is at least 64, --rows and --timeout more than 0", "")
    if args.csv and args.format not in (None, "csv"):
        raise Failure(Exit.USAGE, "--csv and --format say different things", "give one of them")
    place = store_of(args)
    try:
        from sealwire.probe.store.query import NoAnswer, Questions

        with Questions(place, fresh=not args.compacted, memory=f"{args.memory}MB") as questions:
            _warn(questions, args)
            if args.tables:
                return _tables(questions, say)
            return _answer(questions, args, say)
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "check --store") from error
    except NoAnswer as error:
        raise Failure(Exit.NO, str(error), "sealwire query --tables lists what can be asked") from error


def _warn(questions: Questions, args: argparse.Namespace) -> None:
    """What an answer leaves out is said, beside the answer."""
    if args.compacted and questions.uncompacted_bytes:
        sys.stderr.write(f"left out: {questions.uncompacted_bytes:,} bytes of segments not compacted yet\n")
    for probe, segment in questions.removed.items():
        sys.stderr.write(f"removed by retention: probe {probe[:16]}, segments up to {segment:,}\n")
    if questions.unreadable:
        sys.stderr.write(f"left out: {questions.unreadable:,} segments whose events cannot be read\n")


def _tables(questions: Questions, say: Say) -> Exit:
    for name, words, columns in questions.describe():
        shown = ", ".join(f"{column} {kind}" for column, kind in columns)
        say.fact("table", f"{name}: {words}\n    {shown}\n", name=name, shows=words, columns=dict(columns))
    return Exit.OK


def _answer(questions: Questions, args: argparse.Namespace, say: Say) -> Exit:
    form = "csv" if args.csv else args.format
    timer = threading.Timer(args.timeout or 0, questions.interrupt)
    timer.daemon = True
    if args.timeout is not None:
        timer.start()
    try:
        answer = questions.ask(args.sql)
        if say.json and form is None:
            count = 0
            for row in answer.rows():
                say.record("row", values=_object(answer, row))
                count += 1
            say.record("answer", rows=count, columns=answer.columns)
        elif form == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(answer.columns)
            writer.writerows(map(_text, row) for row in answer.rows())
        elif form == "json":
            for row in answer.rows():
                sys.stdout.write(json.dumps(_object(answer, row), default=str) + "\n")
        else:
            _table(answer, args.rows)
    finally:
        timer.cancel()
    return Exit.OK


def _object(answer: Answer, row: tuple[Any, ...]) -> dict[str, Any]:
    return {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in zip(answer.columns, row, strict=True)
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.hex() if isinstance(value, bytes) else str(value)


def _printable(text: str) -> str:
    """Names come from strangers: nothing of them moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def _cell(value: Any, last: bool) -> str:
    text = _text(value)
    if "\n" in text:
        return text
    text = _printable(text)
    return text if last or len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _table(answer: Answer, most: int) -> None:
    kept, more = _some(answer.rows(), most)
    last = len(answer.columns) - 1
    numbers = [
        all(isinstance(row[n], int | float | None) for row in kept) and bool(kept) for n in range(last + 1)
    ]
    cells = [[_cell(value, n == last) for n, value in enumerate(row)] for row in kept]
    widths = [
        max(len(name), *(len(row[n]) for row in cells if "\n" not in row[n]), 0)
        for n, name in enumerate(answer.columns)
    ]
    for row in (answer.columns, *cells):
        shown = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numbers, strict=True)
        ]
        sys.stdout.write("  ".join(shown).rstrip() + "\n")
    if more:
        sys.stderr.write(
            f"and more: the first {most:,} rows are shown; --rows N, --csv and --json show more\n"
        )


def _some(rows: Iterator[tuple[Any, ...]], most: int) -> tuple[list[tuple[Any, ...]], bool]:
    kept: list[tuple[Any, ...]] = []
    for row in rows:
        if len(kept) == most:
            return kept, True
        kept.append(row)
    return kept, False
