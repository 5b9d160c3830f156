"""T3: `sealwire bench` on the libcrypto of another directory than the system's.

    python benchmarks/newer_libcrypto.py DIRECTORY ROW ... [options of `sealwire bench`]

DIRECTORY has a libcrypto.so.3 and, where that wants a newer C library than this system has, that library
with its loader: .cache/peers/openssl/usr/lib/x86_64-linux-gnu, once tests/interop/install_peers has run.
This interpreter and its packages are used as they are; only what they load is another.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

SYSTEM = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib")
# Measuring processes are started by this name.
PROGRAM = "import sys; sys.executable = sys.argv.pop(1); from sealwire.cli import main; sys.exit(main())"


def main() -> int:
    if len(sys.argv) < 3 or not list(Path(sys.argv[1]).glob("libcrypto.so.3")):
        print((__doc__ or "").splitlines()[2].strip(), file=sys.stderr)
        return 2
    directory, *rows = sys.argv[1:]
    libraries = ":".join((directory, *SYSTEM))
    loaders = sorted(Path(directory).glob("ld-linux*.so.*"))
    # As it is called, so that it finds its own packages.
    command = [sys.executable]
    environment = dict(os.environ)
    if loaders:
        command = [str(loaders[0]), "--library-path", libraries, sys.executable]
    else:
        environment["LD_LIBRARY_PATH"] = libraries
    with tempfile.TemporaryDirectory(prefix="sealwire-bench-") as made:
        python = Path(made) / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        python.chmod(0o700)
        done = subprocess.run(
            [python, "-c", PROGRAM, str(python), "bench", *rows], env=environment, check=False
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
