"""Configuration files of probe and collector: TOML whose keys are names of options, and settings.

    [probe]                         [collector]
    interface = "eth0"              listen = "[::]:5555"
    to = "collector:5555"           cert = "/etc/sealwire/collector.pem"
    idle_timeout = 120              keep_days = 30

A file's values stand before the command line's own, so those win.  A key that is none is an error that
names the nearest one; nothing is ignored.
"""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from sealwire.cli.say import Exit, Failure

#: Verb -> the table that configures it.
SECTIONS: Final = {"probe": "probe", "collect": "collector"}
#: What only a command line says.
_NOT_KEYS: Final = {"help", "json", "debug", "config", "read", "top", "seconds", "packets", "format", "write"}
#: Numbers that must be in a range, where the option itself does not say so: key -> least, most.
RANGES: Final[dict[str, tuple[float, float]]] = {
    **{"health": (10, 3600), "heartbeat": (1, 3600), "spool_max": (1, 1 << 20), "sample": (2, 1_000_000)},
    **{"snaplen": (64, 65_535), "workers": (1, 256), "drain": (0, 3600), "probes": (1, 1_000_000)},
    **{"memory": (1, 1 << 20), "keep_days": (0.001, 36_500), "keep_most": (1, 1 << 30)},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a configuration."""

    where: str
    words: str

    def __str__(self) -> str:
        return f"{self.where}: {self.words}"


def actions(verb: str) -> dict[str, argparse.Action]:
    """The options of a verb that a file may set, by key."""
    from sealwire.cli import load_verb

    parser = argparse.ArgumentParser(add_help=False)
    load_verb(verb).options(parser)
    return {
        action.dest: action
        for action in parser._actions
        if action.option_strings and action.dest not in _NOT_KEYS
    }


def settings_names() -> set[str]:
    """Settings of the probe's flow table, which a file has beside options."""
    from sealwire.probe.settings import Settings

    return {field.name for field in fields(Settings)}


def read(name: str) -> dict[str, Any]:
    """A file's tables.  Raises Failure."""
    try:
        with Path(name).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{name}: {error.strerror}", "check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"{name} is no TOML: {error}", "") from error


def problems(verb: str, table: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a verb's table: unknown keys, kinds, ranges."""
    known = actions(verb)
    of_settings = settings_names() if verb == "probe" else set()
    section = SECTIONS[verb]
    for key, value in table.items():
        where = f"[{section}] {key}"
        if key in of_settings:
            yield from _of_settings(where, key, value)
        elif key not in known:
            near = difflib.get_close_matches(key, [*known, *of_settings], 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield Problem(where, f"there is no such key{hint}")
        elif (words := _wrong(known[key], value)) is not None:
            yield Problem(where, words)


def _of_settings(where: str, key: str, value: object) -> Iterator[Problem]:
    from sealwire.errors import ConfigurationError
    from sealwire.probe.settings import from_mapping

    try:
        from_mapping({key: value})
    except ConfigurationError as error:
        yield Problem(where, str(error))


def _wrong(action: argparse.Action, value: Any) -> str | None:
    """Why an option cannot have this value."""
    if action.nargs == 0:
        return None if isinstance(value, bool) else f"it is true or false, not {value!r}"
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not isinstance(action, argparse._AppendAction):
        return "it has one value, not several"
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            return f"{one!r} is no value it can have"
        if action.type in (int, float) and isinstance(one, str):
            return f"it is a number, not {one!r}"
        if callable(action.type):
            try:
                action.type(str(one))
            except (argparse.ArgumentTypeError, ValueError, TypeError, Failure) as error:
                return str(error)
        if action.choices is not None and one not in action.choices:
            return f"it is one of {', '.join(map(str, action.choices))}, not {one!r}"
        bounds = RANGES.get(action.dest)
        if bounds is not None and not bounds[0] <= float(one) <= bounds[1]:
            return f"it is from {bounds[0]:g} to {bounds[1]:g}, not {one}"
    return None


def expanded(given: Sequence[str]) -> list[str]:
    """A command line with what its ``--config FILE`` says put in front of it.  Raises Failure."""
    words = list(given)
    at = next((n for n, word in enumerate(words) if not word.startswith("-")), None)
    if at is None or words[at] not in SECTIONS:
        return words
    verb, name = words[at], _named(words[at + 1 :])
    if name is None:
        return words
    table = read(name).get(SECTIONS[verb], {})
    if not isinstance(table, dict):
        raise Failure(Exit.USAGE, f"{name}: {SECTIONS[verb]} is no table", f"write [{SECTIONS[verb]}]")
    for problem in problems(verb, table):
        raise Failure(Exit.USAGE, f"{name}: {problem}", "sealwire config check lists all that is wrong")
    known, more = actions(verb), []
    reads_file = any(word in ("-r", "--read") or word.startswith("--read=") for word in words)
    for key, value in table.items():
        if key not in known or (verb == "probe" and key in settings_names()):
            continue
        if key == "interface" and reads_file:
            continue
        option = known[key].option_strings[-1]
        if isinstance(value, bool):
            more += [option] if value else []
        else:
            more += [f"{option}={one}" for one in (value if isinstance(value, list) else [value])]
    return [*words[: at + 1], *more, *words[at + 1 :]]


def _named(words: Sequence[str]) -> str | None:
    for n, word in enumerate(words):
        if word == "--config" and n + 1 < len(words):
            return words[n + 1]
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None
