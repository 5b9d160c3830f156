"""`python -m sealwire.cli` is `sealwire`."""

import sys

from sealwire.cli import main

sys.exit(main())
