"""Attack programs, to see what a server does under them: loopback and network namespaces only.

Everything that sends takes a :class:`~sealwire.attack.target.Target`, and there is no Target for
an address of a real network (docs/attacks.md).  Installed with ``sealwire[attack]``, run with
``sealwire attack``.
"""

from sealwire.attack.target import Refused, Target

__all__ = ["Refused", "Target"]
