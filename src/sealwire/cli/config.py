"""`sealwire config`: is a configuration right; units for systemd; alert rules for Prometheus."""

from __future__ import annotations

import argparse
import importlib.resources
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sealwire.cli import configured
from sealwire.cli.configured import Problem
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError

_UNITS = ("sealwire-probe@.service", "sealwire-collect.service")
#: Keys whose values are files that must be there, and those that are private keys of ours.
_FILES = {
    *("cert", "key", "cafile", "client_ca", "tls_key", "collector", "collector_rpks", "pseudonyms"),
    *("sign", "old_key", "enrolled"),
}
_SIGNING_KEYS = {"sign", "old_key"}
#: Directories that are written to.
_WRITTEN = {"spool", "out"}
#: Environment of the brief: name -> least, most, None for what is no number.
ENVIRONMENT: dict[str, tuple[float, float] | None] = {
    "CAPTURE_IFACE": None,
    "BUFFER_DIR": None,
    "MAX_BUFFER_SIZE_MB": (1, 10_000),
    "SPOOL_MAX_MB": (1, 1 << 20),
    "BACKPRESSURE_THRESHOLD": (0, 10_000 << 20),
    "FLOW_TIMEOUT_SECONDS": (60, 3600),
    "FLOW_ACTIVE_TIMEOUT_SECONDS": (1, 86_400),
    "DPI_MAX_FLOWS": (1, 100_000_000),
    "MAX_FLOW_TABLE_MB": (1, 1 << 24),
    "HEALTH_REPORT_INTERVAL_SECONDS": (10, 3600),
    "CA_CERT_PATH": None,
    "PROBE_CERT_PATH": None,
    "PROBE_KEY_PATH": None,
}
_PATHS = {"BUFFER_DIR", "CA_CERT_PATH", "PROBE_CERT_PATH", "PROBE_KEY_PATH"}


def options(parser: argparse.ArgumentParser) -> None:
    wanted = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = wanted.add_parser("check", help="is a configuration, and the environment, right")
    check.add_argument("file", nargs="?", metavar="FILE", help="TOML with tables [probe] and [collector]")
    check.add_argument(
        "--section", choices=sorted(configured.SECTIONS.values()), help="this table only, which must be there"
    )
    units = wanted.add_parser("units", help="write hardened units for systemd")
    units.add_argument("dir", type=Path, metavar="DIR", help="where to, such as /etc/systemd/system")
    rules = wanted.add_parser("rules", help="the rules of degradation as alert rules for Prometheus")
    rules.add_argument("-o", "--out", metavar="FILE", help="where to (default: standard output)")


def run(args: argparse.Namespace, say: Say) -> Exit:
    if args.action == "units":
        return _units(args.dir, say)
    if args.action == "rules":
        return _rules(args.out, say)
    found = [*_environment(os.environ)]
    tables = configured.read(args.file) if args.file else {}
    if args.section is not None and args.section not in tables:
        found.append(Problem(str(args.file), f"there is no table [{args.section}]"))
    sections = {section: verb for verb, section in configured.SECTIONS.items()}
    checked = 0
    for name, table in tables.items():
        if name not in sections or not isinstance(table, dict):
            known = " and ".join(f"[{section}]" for section in sections)
            found.append(
                Problem(str(args.file), f"[{name}] is no table of a configuration; those are {known}")
            )
            continue
        if args.section in (None, name):
            checked += len(table)
            found += configured.problems(sections[name], table)
            found += _places(name, table)
    for problem in found:
        say.fact("problem", str(problem), where=problem.where, message=problem.words)
    say.fact(
        "checked",
        f"{args.file or 'the environment'}: {'wrong' if found else 'good'}: {checked} keys, "
        f"{len(found)} problems",
        file=args.file,
        keys=checked,
        problems=len(found),
        good=not found,
    )
    return Exit.NO if found else Exit.OK


def _environment(environment: Mapping[str, str]) -> Iterator[Problem]:
    for name, bounds in ENVIRONMENT.items():
        text = environment.get(name)
        if text is None:
            continue
        if name in _PATHS and not os.path.isabs(text):
            yield Problem(f"${name}", f"{text!r} is no absolute path")
        if bounds is None:
            continue
        try:
            value = float(text)
        except ValueError:
            yield Problem(f"${name}", f"{text!r} is no number")
            continue
        if not bounds[0] <= value <= bounds[1]:
            yield Problem(f"${name}", f"it is from {bounds[0]:g} to {bounds[1]:g}, not {text}")


def _places(section: str, table: Mapping[str, Any]) -> Iterator[Problem]:
    """Files that must be there, keys nobody else may read, directories that must be writable."""
    for key, value in table.items():
        where = f"[{section}] {key}"
        if not isinstance(value, str):
            continue
        path = Path(value)
        if key in _FILES | _WRITTEN and not path.is_absolute():
            yield Problem(where, f"{value!r} is no absolute path, and a service has another directory")
        elif key in _FILES and not path.exists():
            yield Problem(where, f"there is no {value}")
        elif key in _FILES and not os.access(path, os.R_OK):
            yield Problem(where, f"{value} cannot be read")
        elif key in _SIGNING_KEYS:
            yield from _signing_key(where, value)
        elif key in _WRITTEN:
            above = next(place for place in (path, *path.parents) if place.exists())
            if not _can_make_files(above):
                yield Problem(where, f"{value} cannot be written: {above} is not ours to write to")
        elif key in ("key", "tls_key") and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield Problem(where, f"others may use {value}: chmod 600 {value}")


def _can_make_files(directory: Path) -> bool:
    # Rights are not all: root has them on a file system that takes nothing.
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError:
        return False
    return True


def _signing_key(where: str, name: str) -> Iterator[Problem]:
    from sealwire.probe.seal.keys import load_signing_key

    try:
        load_signing_key(name)
    except (ConfigurationError, OSError) as error:
        yield Problem(where, str(error))


def _units(place: Path, say: Say) -> Exit:
    room = importlib.resources.files("sealwire") / "units"
    for name in _UNITS:
        try:
            (place / name).write_text((room / name).read_text("utf-8"), "utf-8")
        except OSError as error:
            raise Failure(Exit.ENVIRONMENT, f"{place / name}: {error.strerror}", "check DIR") from error
        say.fact("unit", f"{place / name}", file=str(place / name))
    say.words("next: sealwire config check /etc/sealwire/probe.toml; systemctl daemon-reload")
    return Exit.OK


def _rules(out: str | None, say: Say) -> Exit:
    from sealwire.probe.health import prometheus_rules

    text = prometheus_rules()
    if out is None:
        if say.json:
            raise Failure(
                Exit.USAGE, "--json and rules on standard output do not go together", "give -o FILE"
            )
        say.text.write(text)
        return Exit.OK
    try:
        Path(out).write_text(text, "utf-8")
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{out}: {error.strerror}", "check -o") from error
    say.fact("rules", f"{out}: rules for Prometheus", file=out)
    return Exit.OK
