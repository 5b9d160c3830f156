"""`sealwire doctor`: what this machine has for fast datagrams, and what to set where it lacks something."""

from __future__ import annotations

import argparse
from typing import Final

from sealwire.cli.say import Exit, Say
from sealwire.drive.fitness import Grade, examine
from sealwire.record import protect

_MARKS: Final = {Grade.GOOD: "ok  ", Grade.ADVICE: "  - ", Grade.LACKING: "NO  "}


def options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Looks at this machine: which paths are compiled, what the kernel does for runs of datagrams, "
        "buffers, limits, MTUs. Nothing is changed. Exit code 1 where something is lacking, advice alone: 0."
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    findings = examine(protect.describe(), protect.COMPILED)
    for finding in findings:
        step = f"\n      {finding.step}" if finding.step else ""
        say.fact(
            "finding",
            f"{_MARKS[finding.grade]}{finding.found}{step}",
            name=finding.name,
            grade=finding.grade,
            found=finding.found,
            step=finding.step,
        )
    lacking = sum(finding.grade is Grade.LACKING for finding in findings)
    advice = sum(finding.grade is Grade.ADVICE for finding in findings)
    say.fact(
        "summary",
        f"{len(findings)} things looked at: {lacking} lacking, advice on {advice}",
        lacking=lacking,
        advice=advice,
    )
    return Exit.NO if lacking else Exit.OK
