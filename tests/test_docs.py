"""The documents say what is there: links lead somewhere, the manual has every option."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from sealwire import cli
from sealwire.cli.say import Exit

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []


def verbs() -> dict[str, argparse.ArgumentParser]:
    for action in cli.parser({name: cli.load_verb(name) for name in cli.VERBS})._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the program has no verbs")


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_the_manual_has_every_option_of_the_verb_and_no_other(verb: str) -> None:
    manual = (ROOT / "docs" / "cli.md").read_text("utf-8")
    section = re.search(rf"^## sealwire {verb}$(.*?)(?=^## |\Z)", manual, re.MULTILINE | re.DOTALL)
    assert section, f"docs/cli.md has no section on {verb}"
    described = set(re.findall(r"^\| `(--[a-z-]+)", section[1], re.MULTILINE))
    options = {name for action in verbs()[verb]._actions for name in action.option_strings}
    assert described == {name for name in options if name.startswith("--")} - {"--help", "--json", "--debug"}


def test_the_manual_has_every_exit_code() -> None:
    manual = (ROOT / "docs" / "cli.md").read_text("utf-8")
    codes = re.findall(r"^\| (\d) \|", manual, re.MULTILINE)
    assert [int(code) for code in codes] == [int(code) for code in Exit]


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    named = re.findall(r"@echo 'make ([a-z-]+) ", makefile)
    assert sorted(named) == sorted(set(targets.split()) - {"help", "compiler"})
