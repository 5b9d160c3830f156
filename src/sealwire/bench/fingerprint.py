"""Which machine and which software a result comes from.

Figures of different machines are not comparable, so a result carries an identity of its machine: a
hash over what makes figures differ, from which nobody can read whose machine it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import ssl
import subprocess
from pathlib import Path

import cryptography
from cryptography.hazmat.backends.openssl import backend

import sealwire
from sealwire.record import protect


def machine() -> dict[str, object]:
    """Processor, memory and kernel, with an `id` that is equal exactly on this machine."""
    facts = _cpu_facts()
    facts["architecture"] = platform.machine()
    facts["cpus"] = os.cpu_count() or 1
    facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30))
    flags = facts.pop("flags")
    parts = [*(str(facts[key]) for key in sorted(facts)), str(flags), _machine_id()]
    identity = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return {"id": identity, **facts, "kernel": f"{platform.system()} {platform.release()}"}


def software() -> dict[str, object]:
    """What ran: commit, interpreter, which record layer, and every OpenSSL there is in the process."""
    commit, changed = _commit()
    return {
        "sealwire": sealwire.__version__,
        "commit": commit,
        "changed_since": changed,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiled": protect.COMPILED,
        "record_protection": protect.describe(),
        "openssl_interpreter": ssl.OPENSSL_VERSION,
        "cryptography": cryptography.__version__,
        "openssl_cryptography": backend.openssl_version_text(),
    }


def load() -> float:
    """Processes that wanted a CPU during the last minute; above the number of CPUs figures suffer."""
    return os.getloadavg()[0]


def _cpu_facts() -> dict[str, object]:
    facts: dict[str, object] = {"cpu": platform.processor() or "unknown", "flags": ""}
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return facts
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            facts["cpu"] = value.strip()
        elif key.strip() in ("flags", "Features"):
            facts["flags"] = " ".join(sorted(value.split()))
    return facts


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text("ascii").strip()
    except OSError:
        return ""


def _commit() -> tuple[str, bool]:
    """The commit of the source tree we run from, and whether src/ differs from it."""
    tree = Path(__file__).resolve().parents[3]
    if not (tree / ".git").exists():
        return "unknown", False

    def git(*arguments: str) -> str:
        run = ["git", "-C", str(tree), *arguments]
        return subprocess.run(run, check=True, capture_output=True, text=True, timeout=20).stdout  # noqa: S603

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--", "src").strip())
    except (OSError, subprocess.SubprocessError):
        return "unknown", False
