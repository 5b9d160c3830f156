"""Compiled modules built with gcc's sanitizers, and a process that has them in the place of the others."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FLAGS: Final = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-O1",
    "-g",
)
#: Where an instrumented process finds its modules.
VARIABLE: Final = "SEALWIRE_SANITIZED"


def build(modules: Sequence[str], into: Path) -> None:
    """`modules` (dotted names), instrumented.  Raises CalledProcessError with what the compiler said."""
    cythonize = importlib.import_module("Cython.Build").cythonize
    extension = importlib.import_module("setuptools").Extension
    for whole in modules:
        source = f"src/{whole.replace('.', '/')}.pyx"
        (made,) = cythonize(
            [extension(whole, [source])],
            include_path=["src"],
            build_dir=str(into / "c"),
            language_level=3,
            quiet=True,
            force=True,
        )
        command = ["gcc", "-shared", "-fPIC", "-fwrapv", *FLAGS, "-I", sysconfig.get_path("include")]
        subprocess.run([*command, made.sources[0], "-o", str(into / f"{whole}.so")], check=True, cwd=ROOT)


def restart(program: str, into: Path, seconds: float) -> int:
    """A module as program again, with the sanitizers' runtime in front of everything."""
    found = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, check=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(found),
        # Python keeps its interned objects; and its own allocator would hide what is next to a buffer.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
        VARIABLE: str(into),
    }
    command = [sys.executable, "-m", program, str(seconds)]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def load(modules: Sequence[str], from_there: Path) -> None:
    """The instrumented modules in the place of the others."""
    for whole in modules:
        package, _, name = whole.rpartition(".")
        loader = importlib.machinery.ExtensionFileLoader(whole, str(from_there / f"{whole}.so"))
        spec = importlib.util.spec_from_file_location(whole, loader.path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        # Before it runs: modules that cimport one another look there.
        sys.modules[whole] = module
        loader.exec_module(module)
        setattr(importlib.import_module(package), name, module)
