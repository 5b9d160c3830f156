"""The compiled modules; everything else about the build is in pyproject.toml.

Every .pyx under src becomes an extension.  They are optional: without Cython, a compiler or
Python's headers the package installs without them and runs on its plain-Python twins.

    SEALWIRE_REQUIRE_COMPILED=1   a module that cannot be built is an error
    SEALWIRE_PURE=1               do not even try
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
SOURCE = Path("src")
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def extensions() -> list[Extension]:
    """The modules to build, as the environment asks."""
    if os.environ.get("SEALWIRE_PURE") == "1":
        return []
    required = os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1"
    try:
        from Cython.Build import cythonize
    except ImportError:
        if required:
            sys.exit("SEALWIRE_REQUIRE_COMPILED=1, but Cython is not installed: pip install Cython")
        return []
    modules = [
        Extension(".".join(path.relative_to(SOURCE).with_suffix("").parts), [path.as_posix()])
        for path in sorted(SOURCE.rglob("*.pyx"))
    ]
    # C code is made outside src, so that packages never pick it up.
    built = cythonize(modules, include_path=[str(SOURCE)], language_level=3, build_dir="build/cython")
    for module in built:
        # Cython makes new objects out of those it is given and forgets this.
        module.optional = not required
    return built  # type: ignore[no-any-return]


os.chdir(ROOT)
setup(ext_modules=extensions(), options={"build_ext": {"parallel": CPUS}})
