"""What one idle connection of a DTLS server is made of, in bytes, by the module that holds them.

    python benchmarks/one_connection.py [PEERS]

tracemalloc sees Python's objects; what libcrypto allocates for keys is the difference to the growth
of the resident set, which is measured without it first.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    from tests.limits.held import Holder, resident

    peers = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    traced = "--traced" in sys.argv
    holder = Holder()
    for _ in range(50):
        holder.idle()
    gc.collect()
    if not traced:
        before = resident()
        for _ in range(peers):
            holder.idle()
        print(f"resident set: {(resident() - before) / peers:,.0f} bytes a peer", flush=True)
        subprocess.run([sys.executable, __file__, str(peers), "--traced"], check=True)
        return
    tracemalloc.start()
    for _ in range(peers):
        holder.idle()
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    by_module: Counter[str] = Counter()
    for one in snapshot.statistics("filename"):
        path = Path(one.traceback[0].filename)
        name = path.relative_to(ROOT / "src").as_posix() if ROOT / "src" in path.parents else "other"
        by_module[name] += one.size
    total = sum(by_module.values())
    print(f"Python objects: {total / peers:,.0f} bytes a peer")
    for name, size in by_module.most_common(14):
        print(f"{size / peers:8,.0f}  {name}")


if __name__ == "__main__":
    main()
