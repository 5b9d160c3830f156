from sealwire.limits.charging import PlainAccountSums, PlainLedgerSums, PlainPrefixSums, Purpose

def learn(purposes: tuple[Purpose, ...], limits: dict[Purpose, str]) -> None: ...

PrefixSums = PlainPrefixSums
LedgerSums = PlainLedgerSums
AccountSums = PlainAccountSums
