"""All the security checks that are taken away, one at a time: one change of text in one file each.

`new` must leave a program that runs, with the check gone or turned round.  Tests are named in the
order in which they are likely to notice.
"""

from __future__ import annotations

from typing import Final

from tests.mutation import of_handshakes, of_identities, of_messages, of_records
from tests.mutation.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *of_handshakes.MUTANTS,
    *of_identities.MUTANTS,
    *of_records.MUTANTS,
    *of_messages.MUTANTS,
)
