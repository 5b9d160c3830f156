"""Who may deliver: one small file a probe, re-read while the collector runs, and one-time tokens.

    DIR/<probe id>.json      {"name", "probe", "key", "identity", "raw_key", "enrolled", "revoked"}
    DIR/<hash of token>.token {"expires", "name"}

A probe is its sealing key; it is bound to the TLS identity (hash of the public key in its certificate,
or of its raw key) under which it may connect.  Revoking keeps the file and notes when, so that a revoked
probe is not taken for a new one.  Nothing here reads a clock.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sealwire.errors import ConfigurationError
from sealwire.probe.disk import UNFINISHED, replace_file, sync_folder
from sealwire.probe.seal.keys import PublicKey, parse_public_key

_PROBE: Final = ".json"
_OFFER: Final = ".token"
_FILE_MAXIMUM_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Probe:
    """An enrolled probe."""

    name: str
    key: PublicKey = field(repr=False)
    identity: bytes  #: SHA-256 of the SubjectPublicKeyInfo it connects with
    enrolled: int  #: nanoseconds since 1970
    #: That SubjectPublicKeyInfo, where it connects with a raw key (RFC 7250); b"" for a certificate.
    raw_key: bytes = field(default=b"", repr=False)
    revoked: int | None = None  #: nanoseconds since 1970

    @property
    def id(self) -> bytes:
        """The id of its first sealing key."""
        return self.key.id

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "probe": self.id.hex(),
            "key": base64.b64encode(self.key.spki).decode(),
            "identity": self.identity.hex(),
            "raw_key": base64.b64encode(self.raw_key).decode(),
            "enrolled": self.enrolled,
            "revoked": self.revoked,
        }

    @classmethod
    def from_json(cls, data: bytes) -> Probe:
        """Raises ConfigurationError."""
        try:
            found = json.loads(data)
            probe = cls(
                str(found["name"]),
                parse_public_key(base64.b64decode(found["key"], validate=True)),
                bytes.fromhex(found["identity"]),
                int(found["enrolled"]),
                base64.b64decode(found["raw_key"], validate=True),
                None if found["revoked"] is None else int(found["revoked"]),
            )
            right = len(probe.identity) == 32 and probe.id.hex() == found["probe"]
        except (ValueError, KeyError, TypeError, AttributeError):
            right = False
        if not right:
            raise ConfigurationError("this file says of no probe who it is")
        return probe


class Enrolled:
    """A directory of enrolled probes.  `refresh()` takes up what changed since."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Raises OSError where the directory cannot be made or read, ConfigurationError for a bad file."""
        self.directory = Path(directory)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._probes: dict[bytes, Probe] = {}
        self._stamps: dict[str, tuple[int, int, int]] = {}
        #: Files that could not be read as they are now: what they said before holds.
        self.bad: dict[str, str] = {}
        self.refresh()
        if self.bad:
            name, words = next(iter(self.bad.items()))
            raise ConfigurationError(f"{self.directory / name}: {words}")

    def __len__(self) -> int:
        return len(self._probes)

    def probes(self) -> list[Probe]:
        """All of them, revoked ones included, by name."""
        return sorted(self._probes.values(), key=lambda probe: (probe.name, probe.id))

    def probe(self, id_: bytes) -> Probe | None:
        """The probe with this id, revoked or not."""
        return self._probes.get(id_)

    def key_of(self, id_: bytes) -> PublicKey | None:
        """The first key of a probe that may deliver; None for one that may not."""
        probe = self._probes.get(id_)
        return None if probe is None or probe.revoked is not None else probe.key

    def raw_keys(self) -> list[bytes]:
        """Raw keys that may connect."""
        return [probe.raw_key for probe in self._probes.values() if probe.raw_key and probe.revoked is None]

    def refresh(self) -> bool:
        """Read what is new or changed; whether anything was.

        A file that went away is a probe that is not enrolled any more.  One that cannot be read leaves
        its probe as it was, and is in `bad`: half a file must not open or close a door.
        """
        stamps = {}
        for entry in os.scandir(self.directory):
            if entry.name.endswith(_PROBE):
                status = entry.stat()
                stamps[entry.name] = status.st_mtime_ns, status.st_ino, status.st_size
        if stamps == self._stamps and not self.bad:
            return False
        changed = stamps != self._stamps
        for name in self._stamps.keys() - stamps.keys():
            self._probes.pop(_id_of(name), None)
            self.bad.pop(name, None)
        for name, stamp in stamps.items():
            if self._stamps.get(name) != stamp or name in self.bad:
                self._read(name)
        self._stamps = stamps
        return changed

    def _read(self, name: str) -> None:
        self.bad.pop(name, None)
        try:
            with (self.directory / name).open("rb") as file:
                probe = Probe.from_json(file.read(_FILE_MAXIMUM_BYTES))
            if _id_of(name) != probe.id:
                raise ConfigurationError("another probe's file")
        except (OSError, ConfigurationError) as error:
            self.bad[name] = str(error)
        else:
            self._probes[probe.id] = probe

    def add(self, probe: Probe) -> None:
        """Enrol a probe.  Raises ConfigurationError if its sealing key is another's, or revoked."""
        known = self._probes.get(probe.id)
        if known is not None and (known.identity != probe.identity or known.revoked is not None):
            was = "revoked" if known.revoked is not None else "enrolled under another identity"
            raise ConfigurationError(
                f"this sealing key was {was}: remove {self._name(probe.id)} first, if that is meant"
            )
        self._write(known or probe)

    def revoke(self, id_: bytes, now: int) -> Probe:
        """Hear this probe no more.  Raises ConfigurationError if there is none."""
        probe = self._probes.get(id_)
        if probe is None:
            raise ConfigurationError(f"no probe {id_.hex()} is enrolled")
        if probe.revoked is None:
            probe = replace(probe, revoked=now)
            self._write(probe)
        return probe

    def _name(self, id_: bytes) -> str:
        return id_.hex() + _PROBE

    def _write(self, probe: Probe) -> None:
        self._replace(self._name(probe.id), probe.as_json())
        self._probes[probe.id] = probe

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        # Durable with its name: a revocation that a power cut undoes would be none.
        text = json.dumps(content, indent=1) + "\n"
        replace_file(self.directory / name, text.encode(), f".{os.getpid()}{UNFINISHED}")

    # Tokens: 128 random bits, good once, of which only the hash is here.

    def offer(self, token: bytes, name: str, expires: int) -> None:
        """Let who has this token enrol one probe until then, nanoseconds since 1970."""
        self._replace(_token_name(token), {"name": name, "expires": expires})

    def redeem(self, token: bytes, now: int) -> str | None:
        """Use a token up; the name it was offered for, or None if it is no good.

        Whoever removes its file has it: two at once cannot both.
        """
        path = self.directory / _token_name(token)
        try:
            with path.open("rb") as file:
                offered = json.loads(file.read(_FILE_MAXIMUM_BYTES))
            path.unlink()
            sync_folder(self.directory)
            return str(offered["name"]) if now < int(offered["expires"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _token_name(token: bytes) -> str:
    return hashlib.sha256(b"sealwire token\0" + token).hexdigest() + _OFFER


def _id_of(name: str) -> bytes:
    try:
        return bytes.fromhex(name.removesuffix(_PROBE))
    except ValueError:
        return b""
