# The compiled twin of `flows`, whose signatures it has.

from sealwire.probe import flows

class Table(flows.Table): ...
