"""``python -m sealwire.monitor docs/monitoring.md`` renews the table of metrics there, or prints it."""

import sys
from pathlib import Path

from sealwire.monitor.metrics import table

BEGIN = "<!-- metrics: written by python -m sealwire.monitor docs/monitoring.md -->"
END = "<!-- end of metrics -->"


def main(arguments: list[str]) -> None:
    """Print the table, or put it between the marks in each file."""
    if not arguments:
        print(table())
    for name in arguments:
        text = Path(name).read_text("utf-8")
        head, begin, rest = text.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not (begin and end):
            raise SystemExit(f"{name} has no place for the table: {BEGIN} ... {END}")
        Path(name).write_text(f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
