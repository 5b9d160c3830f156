"""The README's program runs as it stands there and prints what it should."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

from sealwire.cli import main

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_ten_lines_echo(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert main(["cert", "--dir", str(tmp_path)]) == 0
    # Port 4433 may be taken on the machine that runs this; nothing else is changed.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert program.count("4433") == 2
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("4433", str(port))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'hello'\n", "")
