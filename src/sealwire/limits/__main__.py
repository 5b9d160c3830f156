"""`python -m sealwire.limits docs/limits.md` writes the page of limits."""

from __future__ import annotations

import sys
from pathlib import Path

from sealwire.limits.page import page

if len(sys.argv) != 2:
    sys.exit("usage: python -m sealwire.limits FILE")
Path(sys.argv[1]).write_text(page())
