"""The rooms of the house and who may import whom, enforced on the source as it is written.

Every module under src/sealwire is parsed, never imported; its imports (those inside functions and
under TYPE_CHECKING too: knowing a type is knowing the room) become arrows between rooms.  Three
rules: an arrow must be in ARROWS; only the named modules may touch sockets, clocks, threads and
event loops; the lowest rooms use the standard library alone.  docs/design.md draws the picture.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "sealwire"

_FOUNDATION = {"errors", "limits", "ownership", "telemetry"}
_ENGINE = {"tls13", "record", "wire", "crypto", "context"} | _FOUNDATION
_USER = {"sealwire", "drive", "dtls", "stcp", "proxy"} | _ENGINE

# Room -> rooms it may import.  "sealwire" is the package itself, the paved path.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "limits": {"errors"},
    "ownership": set(),
    "telemetry": {"errors"},  # the reasons for discarding are counters
    "wire": {"errors"},
    "crypto": {"wire", "errors"},
    "record": {"crypto", "errors"},
    "tls13": {"wire", "crypto", "errors"},
    "context": {"crypto", "limits", "errors"},
    "dtls": _ENGINE,
    "stcp": _ENGINE,
    "proxy": {"wire", "errors"},
    "drive": {"dtls", "stcp", "context", "proxy"} | _FOUNDATION,
    "probe": {"tls13", "wire", "crypto", "drive", "context"} | _FOUNDATION,
    "monitor": {"telemetry", "limits"},
    "presets": {"dtls", "limits"},
    "sim": _USER,
    "testing": _USER | {"sim"},
    "bench": _USER | {"sim", "probe"},
    "attack": _USER | {"sim"},
    "cli": _USER | {"sim", "probe", "monitor", "bench", "attack"},
    "sealwire": {"context", "drive", "dtls", "stcp", "errors", "limits", "presets"},
}

# Engines take `now` as an argument and return bytes; these modules are where the world comes in.
WORLDLY = {"asyncio", "socket", "threading", "time"}
MAY_BE_WORLDLY = (
    "sealwire.attack",
    "sealwire.bench",
    "sealwire.cli",
    "sealwire.drive",
    "sealwire.monitor",
    "sealwire.probe.capture",
    "sealwire.probe.collect",
    "sealwire.probe.export",
    "sealwire.probe.seal",
    "sealwire.probe.spool",
    "sealwire.testing",
)

STANDARD_LIBRARY_ONLY = _FOUNDATION | {"wire", "tls13", "dtls", "stcp", "proxy"}

CYTHON_IMPORT = re.compile(r"\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))\b")
# importlib.import_module("...") hides an arrow from sight; these are the ones we know and want.
DEFERRED = {("sealwire.context", "sealwire.drive.blocking")}  # Context.wrap_socket, as ssl has it

COMPILER_ONLY = {"cpython", "cython", "libc", "posix"}  # names that exist while Cython compiles

LONGEST_FILE_LINES = 600


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and where."""

    importer: str
    imported: str
    line: int


def room_of(module: str) -> str:
    """``sealwire.crypto.suites`` lives in ``crypto``, ``sealwire`` in itself; ``_wire`` is ``wire`` in C."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else parts[0]
    return "wire" if room == "_wire" else room


def modules(source: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted([*source.rglob("*.py"), *source.rglob("*.pyi"), *source.rglob("*.pyx")]):
        parts = path.relative_to(source).with_suffix("").parts
        yield ".".join(("sealwire", *(parts[:-1] if parts[-1] == "__init__" else parts))), path


def imports_of(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    text = path.read_text("utf-8")
    if path.suffix == ".pyx":  # Cython is not Python, but its import lines can be read
        for number, line in enumerate(text.splitlines(), 1):
            match = CYTHON_IMPORT.match(line)
            if match:
                yield Import(module, match[1] or match[2], number)
        return
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(module, name.name, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if isinstance(node.args[0], ast.Constant) and (module, node.args[0].value) not in DEFERRED:
                yield Import(module, str(node.args[0].value), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for name in node.names:
                whole = f"{base}.{name.name}"
                # `from sealwire import dtls` imports a module, `from sealwire import Limits` a name.
                is_module = whole in known or (base == "sealwire" and name.name in ARROWS)
                yield Import(module, whole if is_module else base, node.lineno)


def violations(source: Path) -> list[str]:
    """Every broken rule, one sentence each, naming the module, the line and the arrow."""
    found: list[str] = []
    all_modules = list(modules(source))
    known = {name for name, _ in all_modules}
    for module, path in all_modules:
        room = room_of(module)
        if room not in ARROWS:
            found.append(f"{module}: there is no room called {room!r}; add it to docs/design.md and ARROWS")
            continue
        worldly = any(module == name or module.startswith(name + ".") for name in MAY_BE_WORLDLY)
        for item in imports_of(module, path, known):
            where = f"{module} (line {item.line})"
            top = item.imported.partition(".")[0]
            if top == "sealwire":
                target = room_of(item.imported)
                arrow = f"{room} -> {target}"
                if target not in (ARROWS[room] | {room}):
                    found.append(f"{where} imports {item.imported}: the arrow {arrow} is not allowed")
            elif top in WORLDLY and not worldly:
                found.append(f"{where} imports {top}: only drivers and programs may")
            elif room in STANDARD_LIBRARY_ONLY and top not in sys.stdlib_module_names | COMPILER_ONLY:
                found.append(f"{where} imports {top}: {room} uses the standard library alone")
    return found


def test_every_import_follows_an_arrow() -> None:
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("wire.py", "import sealwire.dtls", "the arrow wire -> dtls is not allowed"),
        ("wire.py", "from sealwire import limits", "the arrow wire -> limits is not allowed"),
        ("limits.py", "from sealwire import Context", "the arrow limits -> sealwire is not allowed"),
        ("dtls/__init__.py", "from sealwire.stcp import Connection", "the arrow dtls -> stcp is not allowed"),
        ("tls13/new.py", "from ..record import protect", "the arrow tls13 -> record is not allowed"),
        ("record/x.pyx", "from sealwire.tls13.x cimport (\n    y)", "the arrow record -> tls13"),
        ("dtls/new.py", "def f() -> None:\n    import time", "imports time: only drivers and programs may"),
        ("wire.py", "importlib.import_module('sealwire.drive')", "the arrow wire -> drive is not allowed"),
        ("errors.py", "import socket", "imports socket: only drivers and programs may"),
        ("limits.py", "import cryptography", "limits uses the standard library alone"),
        ("helper/new.py", "", "there is no room called 'helper'"),
    ],
)
def test_a_broken_arrow_is_named(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    copy = tmp_path / "sealwire"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    before = violations(copy)
    target = copy / file
    target.parent.mkdir(exist_ok=True)
    with target.open("a", encoding="utf-8") as out:
        out.write(f"\n{line}\n")
    broken = [sentence for sentence in violations(copy) if sentence not in before]
    assert len(broken) == 1
    assert complaint in broken[0]
    module = "sealwire." + file.partition(".")[0].replace("/", ".").removesuffix(".__init__")
    assert broken[0].startswith(module)


def test_no_file_grows_into_a_giant() -> None:
    lengths = {module: len(path.read_text("utf-8").splitlines()) for module, path in modules(SOURCE)}
    giants = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE_LINES}
    assert giants == {}, "a type is hiding in there: give it a file of its own"


def test_the_package_defines_nothing_but_its_version() -> None:
    """Every public name comes from the module that owns it, and asking for it works."""
    import sealwire

    tree = ast.parse((SOURCE / "__init__.py").read_text("utf-8"))
    defined = [n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    assert defined == ["__getattr__", "__dir__"]
    for name in sealwire.__all__:
        assert getattr(sealwire, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sealwire.nonsense
