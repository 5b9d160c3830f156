"""Builds the fuzzer of a group and runs it: see the package."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzzing import fuzz, sanitizers
from tests.fuzzing.libfuzzer import DESK, GROUPS, TRANSPORT, modules_of
from tests.fuzzing.libfuzzer.inside import GROUP
from tests.fuzzing.libfuzzer.seeds import seeds

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests/fuzzing/libfuzzer/corpus"
_SANITIZE = "-fsanitize=address,undefined"
_FLAGS = ("-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g", "-fwrapv", "-w")
#: What is kept in the tree is small.
_MOST_BYTES = 1_000
_MOST_FILES = 80


def clang() -> str:
    for name in ("clang", *(f"clang-{n}" for n in range(20, 13, -1))):
        for place in os.environ.get("PATH", "").split(":"):
            if (Path(place) / name).exists():
                return name
    sys.exit("no clang here: apt-get install clang")


def build(modules: tuple[str, ...], into: Path) -> Path:
    """The instrumented modules and the program."""
    cythonize = importlib.import_module("Cython.Build").cythonize
    extension = importlib.import_module("setuptools").Extension
    compiler, include = clang(), sysconfig.get_path("include")
    for whole in modules:
        source = f"{'src/' if whole != DESK else ''}{whole.replace('.', '/')}.pyx"
        (made,) = cythonize(
            [extension(whole, [source])],
            include_path=["src"],
            build_dir=str(into / "c"),
            language_level=3,
            quiet=True,
            force=True,
        )
        command = [compiler, "-shared", "-fPIC", f"{_SANITIZE},fuzzer-no-link", *_FLAGS, "-I", include]
        subprocess.run([*command, made.sources[0], "-o", str(into / f"{whole}.so")], check=True, cwd=ROOT)
    program = into / "fuzzer"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [compiler, f"{_SANITIZE},fuzzer", *_FLAGS, "-rdynamic", "-I", include]
    source = str(ROOT / "tests/fuzzing/libfuzzer/main.c")
    subprocess.run([*command, source, f"-lpython{version}", "-o", str(program)], check=True)
    return program


def run(group: str, program: Path, seconds: int, keep: bool) -> int:
    """A group's turn; what it says goes to sealwire-fuzz-GROUP.log beside the findings."""
    kept, place = CORPUS / group, program.parent / group
    for directory in ("corpus", "found"):
        (place / directory).mkdir(parents=True)
    first = fuzz.seeds(group) if group in TRANSPORT else seeds(group)
    for number, seed in enumerate(first):
        (place / f"corpus/seed{number}").write_bytes(seed)
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, sys.path))),
        sanitizers.VARIABLE: str(program.parent),
        GROUP: group,
    }
    directories = [str(place / "corpus"), *([str(kept)] if kept.is_dir() else [])]
    findings = Path(tempfile.gettempdir())
    options = [f"-max_total_time={seconds}", "-max_len=6000", "-timeout=60", "-print_final_stats=1"]
    options += [f"-artifact_prefix={findings}/sealwire-finding-{group}-", "-rss_limit_mb=4096"]
    command = [str(program), *options, *directories]
    with (findings / f"sealwire-fuzz-{group}.log").open("wb") as log:
        code = subprocess.run(
            command, env=environment, cwd=ROOT, check=False, stdout=log, stderr=log
        ).returncode
    if code == 0 and keep:
        kept.mkdir(parents=True, exist_ok=True)
        merging = [str(program), "-merge=1", str(place / "found"), str(kept), str(place / "corpus")]
        subprocess.run(merging, env=environment, cwd=ROOT, check=True, capture_output=True)
        shutil.rmtree(kept)
        kept.mkdir()
        for path in chosen((place / "found").iterdir()):
            (kept / path.name).write_bytes(path.read_bytes())
    text = (findings / f"sealwire-fuzz-{group}.log").read_text("utf-8", "replace").splitlines()
    print(group, "ended with", code, *[line for line in text if line.startswith("stat::")][:2], flush=True)
    return code


def chosen(found: Iterable[Path]) -> list[Path]:
    """Some of the corpus, of all sizes that are small."""
    small = sorted(
        (path for path in found if path.stat().st_size <= _MOST_BYTES), key=lambda p: p.stat().st_size
    )
    return small[:: max(-(-len(small) // _MOST_FILES), 1)]


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--keep"]
    known = (*GROUPS, *TRANSPORT, "all", "transport")
    if not arguments or arguments[0] not in known:
        sys.exit(f"usage: python -m tests.fuzzing.libfuzzer {{{','.join(known)}}} [SECONDS] [--keep]")
    seconds = int(arguments[1]) if len(arguments) > 1 else 600
    groups = {"all": GROUPS, "transport": TRANSPORT}.get(arguments[0], (arguments[0],))
    with tempfile.TemporaryDirectory(prefix="sealwire-libfuzzer-") as name:
        program = build(modules_of(groups[0]), Path(name))
        with ThreadPoolExecutor(len(groups)) as lanes:
            codes = list(lanes.map(lambda group: run(group, program, seconds, "--keep" in sys.argv), groups))
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main())
