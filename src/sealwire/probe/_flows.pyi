# The compiled twin of `flows`, whose signatures it has.

from sealwire.probe import flows

class Table(flows.Table):
    def longest_chain(self) -> int: ...

def siphash_of(key: bytes, words: bytes) -> int: ...
