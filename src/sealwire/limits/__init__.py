"""Limits (numbers), Policy (what happens at each) and Ledger (who holds how many bytes now).

Every byte held on behalf of a peer is charged to one ledger before it is held and released when
it goes; what the ledger refuses is not held.  A connection has an :class:`Account` of its own in
its endpoint's ledger, and shares those of its peer's prefix; closing it releases whatever it still
owed.  How often each limit was reached stands in :attr:`Ledger.reached`, by the limit's name.

    declared.py     Limits: each number with its unit, scope, policy and counter
    ledger.py       Ledger and Account: charge and release, in constant time
    prefixes.py     the accounts of IPv4 addresses and IPv6 /64 and /48, a bounded table
    pressure.py     how full the ledger is, in four levels with hysteresis
    agreement.py    whether limits agree with each other and with the machine; sizing
    reservation.py  memory an application sets aside
"""

from sealwire.limits.agreement import (
    Disagreement,
    Machine,
    Sizing,
    check_limits,
    fit,
    predict_memory,
    tables_bytes,
)
from sealwire.limits.declared import DEFAULT_LIMITS, Limits, Policy, Scope
from sealwire.limits.ledger import Account, Ledger, Purpose
from sealwire.limits.prefixes import Prefix, PrefixTable, prefixes_of
from sealwire.limits.pressure import Pressure
from sealwire.limits.reservation import Budget, Reservation

__all__ = [
    "DEFAULT_LIMITS",
    "Account",
    "Budget",
    "Disagreement",
    "Ledger",
    "Limits",
    "Machine",
    "Policy",
    "Prefix",
    "PrefixTable",
    "Pressure",
    "Purpose",
    "Reservation",
    "Scope",
    "Sizing",
    "check_limits",
    "fit",
    "predict_memory",
    "prefixes_of",
    "tables_bytes",
]
