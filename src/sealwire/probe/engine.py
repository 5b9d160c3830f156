"""The flow table in use: the compiled one where it can be loaded, else its plain-Python twin.

SEALWIRE_PURE=1 asks for the twin; SEALWIRE_REQUIRE_COMPILED=1 makes its use an ImportError.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Final

from sealwire.probe.settings import Settings

__all__ = ["COMPILED", "Settings", "Table", "describe", "hashes", "table_for"]


def _choose() -> tuple[bool, str]:
    """Whether the compiled table is used, and one line saying so or why not."""
    if os.environ.get("SEALWIRE_PURE") == "1":
        return False, "plain Python (SEALWIRE_PURE=1)"
    try:
        import sealwire.probe._arrow
        import sealwire.probe._columns
        import sealwire.probe._flows
        import sealwire.probe.dissect._scan  # noqa: F401 - that they load is the question
    except ModuleNotFoundError:
        reason = "the compiled modules are not built"
    except ImportError as error:
        reason = f"the compiled modules do not load: {error}"
    else:
        return True, "compiled"
    if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
        raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {reason}")
    return False, f"plain Python ({reason})"


_CHOICE: Final = _choose()

#: Whether packets are decoded and counted by compiled code.
COMPILED: Final[bool] = _CHOICE[0]


def describe() -> str:
    """Which flow table is in use, or for what reason not the compiled one, in one line."""
    return _CHOICE[1]


if TYPE_CHECKING:
    from sealwire.probe.flows import Table
elif COMPILED:
    from sealwire.probe._flows import Table
else:
    from sealwire.probe.flows import Table


@functools.cache
def _hashes() -> bool:
    from sealwire.probe import _columns

    return _columns.ready()


def hashes() -> bool:
    """Whether compiled code can make ids and fingerprints: interpreters may lack a libcrypto to ask."""
    return COMPILED and _hashes()


def table_for(settings: Settings) -> type[Table]:
    """The table for these settings: without hashes, the compiled one cannot dissect."""
    if settings.dissect and not hashes():
        from sealwire.probe import flows

        return flows.Table
    return Table
