"""Which backend a client gets, by the name it asked for (SNI) and the protocol that was agreed on (ALPN).

A route for a protocol comes before one for a name, an exact name before a wildcard, and a wildcard
stands for one label, as in certificates (RFC 9525 section 6.3).  A client that no route fits and no default
takes is told which of the two it got wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sealwire.errors import Alert, HandshakeError


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to, or listen: a host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether what goes there stays on this machine: a Unix socket, or a loopback address."""
        host = self.host.lower()
        if self.path or host in ("localhost", "::1"):
            return True
        parts = host.split(".")
        return len(parts) == 4 and parts[0] == "127" and all(part.isdecimal() for part in parts)


class NoRoute(HandshakeError):
    """No backend is for this client; the alert says what it asked for in vain."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Backends by what clients ask for.

    Attributes:
        names: by host name in lower case, ``*.example.org`` among them.
        protocols: by ALPN protocol.
        default: for everybody else; None for nobody.
    """

    default: Target | None = None
    names: Mapping[str, Target] = field(default_factory=dict)
    protocols: Mapping[bytes, Target] = field(default_factory=dict)

    def targets(self) -> set[Target]:
        """Every backend there is."""
        found = {*self.names.values(), *self.protocols.values()}
        return found if self.default is None else {*found, self.default}

    def by_name(self, name: str | None) -> Target | None:
        """The backend for clients that ask for `name`, None without a route for it."""
        if not name:
            return None
        name = name.lower().rstrip(".")
        return self.names.get(name) or self.names.get("*." + name.partition(".")[2])

    def check_name(self, name: str | None) -> None:
        """Raise NoRoute if a client that asks for `name` cannot get a backend, whatever its protocol."""
        if self.default is None and not self.protocols and self.by_name(name) is None:
            raise _unknown(name)

    def choose(self, name: str | None, protocol: bytes | None) -> Target:
        """The backend for a client.

        Raises:
            NoRoute: there is none: unrecognized_name (RFC 6066 section 3) where a name could have found one,
                otherwise no_application_protocol (RFC 7301 section 3.2).
        """
        found = self.protocols.get(protocol) if protocol else None
        found = found or self.by_name(name) or self.default
        if found is not None:
            return found
        if self.names:
            raise _unknown(name)
        asked = "none" if protocol is None else repr(protocol.decode("utf-8", "backslashreplace"))
        raise NoRoute(
            Alert.NO_APPLICATION_PROTOCOL, f"there is no route for the application protocol {asked}"
        )


def _unknown(name: str | None) -> NoRoute:
    asked = "no name" if name is None else f"the name {name!r}"
    return NoRoute(Alert.UNRECOGNIZED_NAME, f"there is no route for {asked}")
