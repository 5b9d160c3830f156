"""What a flow table is allowed and asked to do, from keywords, the environment or TOML.

The names of the environment are those probes before this one used; a value out of its range is an
error, never silently another value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from sealwire.errors import ConfigurationError

NANOSECONDS = 1_000_000_000
#: Longest time a setting may name; keeps every sum of times inside 64 bits.
MAX_SECONDS = 10_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds of packet time, sizes in bytes.

    Raises ConfigurationError for a value out of range.
    """

    #: A flow without a packet for this long is exported; None for never.
    idle_timeout: float | None = 300.0
    #: A flow that lasts this long is exported in parts; None for never.
    active_timeout: float | None = 1800.0
    #: How long packets behind the end of a TCP connection still count in it; None: FIN and RST end nothing.
    linger: float | None = 1.0
    #: Most flows held at once; the one idle for longest makes room.
    max_flows: int = 1_000_000
    #: Most bytes the flows held at once may take.
    max_bytes: int = 512 * 1024 * 1024
    #: How many first packets of a flow keep their size and gap.
    first_packets: int = 0
    #: Find out what flows are, from their first packets.
    dissect: bool = False
    #: Most bytes that may take, all flows together.
    max_dissection_bytes: int = 64 * 1024 * 1024
    #: Look inside GRE, VXLAN, GTP-U and IP in IP.
    tunnels: bool = False

    def __post_init__(self) -> None:
        for name in ("idle_timeout", "active_timeout", "linger"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_SECONDS:
                raise ConfigurationError(
                    f"{name} must be above 0 and at most {MAX_SECONDS:.0f} seconds, not {value!r}"
                )
        for name, least, most in (
            ("max_flows", 1, 100_000_000),
            ("max_bytes", 65_536, 1 << 44),
            ("first_packets", 0, 255),
            ("max_dissection_bytes", 65_536, 1 << 32),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigurationError(f"{name} must be from {least} to {most}, not {value!r}")

    def without_timeouts(self) -> Settings:
        """These settings with flows that end only with the input or for lack of room."""
        return replace(self, idle_timeout=None, active_timeout=None, linger=None)


def nanoseconds(seconds: float | None) -> int:
    """Whole nanoseconds; 0 stands for "never"."""
    return 0 if seconds is None else max(round(seconds * NANOSECONDS), 1)


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


#: Environment name -> the setting, how it is read, and the range it must be in.
ENVIRONMENT: Mapping[str, tuple[str, Callable[[str], object], float, float]] = {
    "FLOW_TIMEOUT_SECONDS": ("idle_timeout", float, 60, 3600),
    "FLOW_ACTIVE_TIMEOUT_SECONDS": ("active_timeout", float, 1, 86_400),
    "DPI_MAX_FLOWS": ("max_flows", int, 1, 100_000_000),
    "MAX_FLOW_TABLE_MB": ("max_bytes", lambda text: int(text) * 1024 * 1024, 1 << 20, 1 << 44),
    "FLOW_DECODE_TUNNELS": ("tunnels", _switch, 0, 1),
}


def from_environment(environment: Mapping[str, str], base: Settings | None = None) -> Settings:
    """`base` with what the environment says; ConfigurationError names the variable that is wrong."""
    found: dict[str, object] = {}
    for name, (setting, read, least, most) in ENVIRONMENT.items():
        text = environment.get(name)
        if text is None:
            continue
        try:
            value = read(text)
        except ValueError:
            raise ConfigurationError(f"{name}={text!r} is not a value it can have") from None
        if not least <= value <= most:  # type: ignore[operator]
            raise ConfigurationError(f"{name}={text!r} is out of its range {least:g} to {most:g}")
        found[setting] = value
    return replace(base or Settings(), **found)  # type: ignore[arg-type]


def from_mapping(table: Mapping[str, object], base: Settings | None = None) -> Settings:
    """`base` with what a TOML table says; 0 or "none" turns a timeout off."""
    known = {field.name for field in fields(Settings)}
    found: dict[str, object] = {}
    for name, value in table.items():
        if name not in known:
            raise ConfigurationError(
                f"{name!r} is no setting of the probe; known are {', '.join(sorted(known))}"
            )
        timeout = name in ("idle_timeout", "active_timeout", "linger")
        if timeout and (value == "none" or value == 0):
            found[name] = None
        elif name in ("tunnels", "dissect"):
            if not isinstance(value, bool):
                raise ConfigurationError(f"{name} must be true or false, not {value!r}")
            found[name] = value
        elif isinstance(value, bool) or not isinstance(value, (int, float) if timeout else int):
            raise ConfigurationError(f"{name} must be a number, not {value!r}")
        else:
            found[name] = value
    return replace(base or Settings(), **found)  # type: ignore[arg-type]
