"""A control socket: a Unix socket in the file system, for the same user and root on this machine.

One request a line, one answer a line, both JSON: ``{"ask": "status"}``, ``{"ask": "top", "n": 10,
"by": "held_bytes"}``.  It is readable for its owner alone (0600), and the kernel says who connects:
anybody but the owner and root is cut off.  It shows peers' addresses, which metrics never do, and
changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sealwire.monitor.attending import Attending
from sealwire.monitor.history import History
from sealwire.monitor.snapshot import snapshot
from sealwire.monitor.sources import Monitor

_REQUEST_BYTES: Final = 4 * 1024
_ANSWER_BYTES: Final = 16 * 1024 * 1024
# A client that says nothing for so long is cut off.
_SECONDS: Final = 60.0
_MOST_PEERS: Final = 1_000
# struct ucred: pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("3i")


class ControlError(Exception):
    """No socket there, nobody answers, or the answer is a refusal; `next_step` says what to do."""

    def __init__(self, wrong: str, next_step: str) -> None:
        super().__init__(wrong)
        self.next_step = next_step


def default_path() -> Path:
    """Where `sealwire serve --control` listens unless told: in the user's own run-time directory."""
    directory = os.environ.get("XDG_RUNTIME_DIR")
    if directory:
        return Path(directory) / "sealwire.sock"
    return Path("/run/sealwire.sock") if os.geteuid() == 0 else Path.home() / ".sealwire.sock"


class ControlServer(Attending):
    """Answers on a Unix socket; see :func:`serve_control`."""

    def __init__(self, monitor: Monitor, history: History | None = None) -> None:
        super().__init__()
        self._monitor = monitor
        self._history = history
        self._path: Path | None = None
        self._identity = (0, 0)
        self._asked: dict[str, Callable[[dict[str, Any]], object]] = {
            "status": lambda _: snapshot(monitor, history),
            "top": self._top,
        }

    async def start(self, path: Path) -> None:
        """Listen at `path`; a socket left there by a program that is gone is replaced.

        Raises:
            FileExistsError: there is something else, or a program that answers.
            OSError: the path cannot be had.
        """
        if path.is_socket() and not _answers(path):
            path.unlink()
        elif path.exists() or path.is_symlink():
            raise FileExistsError(f"{path} exists, and is not a socket nobody answers at")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before it is there at all nobody can connect; afterwards only the owner may.
            before = os.umask(0o177)
            try:
                sock.bind(str(path))
            finally:
                os.umask(before)
            found = path.stat()
            self._identity = (found.st_dev, found.st_ino)
            self._path = path
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_REQUEST_BYTES)
        except BaseException:
            sock.close()
            raise

    async def aclose(self) -> None:
        """Stop, and take the socket away if it is still ours."""
        await super().aclose()
        if self._path is not None:
            try:
                found = self._path.stat()
                if (found.st_dev, found.st_ino) == self._identity:
                    self._path.unlink()
            except OSError:
                pass
            self._path = None

    # -- one client

    def _admits(self, writer: asyncio.StreamWriter) -> bool:
        return _allowed(writer.get_extra_info("socket"))

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_SECONDS):
                line = await reader.readuntil(b"\n")
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "a request is one line of JSON"}
        ask = request.get("ask") if isinstance(request, dict) else None
        if not isinstance(ask, str) or ask not in self._asked:
            return {"error": f"one can ask for {', '.join(self._asked)}"}
        try:
            return {"answer": self._asked[ask](request)}
        except ValueError as error:
            return {"error": str(error)}

    def _top(self, request: dict[str, Any]) -> object:
        n, by = request.get("n", 10), request.get("by", "held_bytes")
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= _MOST_PEERS:
            raise ValueError(f"n is a number from 1 to {_MOST_PEERS}")
        if not isinstance(by, str):
            raise ValueError("by is the name of a cost")
        peers = [
            {"server": name, **asdict(peer)}
            for name, source in self._monitor.sources.items()
            for peer in source.top_peers(n, by)
        ]
        peers.sort(key=lambda peer: -int(str(peer[by])))
        return peers[:n]


def _allowed(sock: Any) -> bool:
    """Whether the kernel says that the other end is the owner's or root's."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (AttributeError, OSError):
        # Where the kernel has no such option (not Linux), the mode of the socket alone decides.
        return not hasattr(socket, "SO_PEERCRED")
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return uid in (0, os.geteuid())


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


async def serve_control(
    monitor: Monitor, path: Path | None = None, history: History | None = None
) -> ControlServer:
    """Answer `sealwire status`, `limits` and `top` at `path`; close it with ``aclose`` or ``async with``.

    Raises:
        FileExistsError, OSError: the path cannot be had.
    """
    server = ControlServer(monitor, history)
    await server.start(path or default_path())
    return server


def ask(path: Path, request: dict[str, object], timeout: float = 5.0) -> Any:
    """Ask the program behind the control socket at `path`.

    Raises:
        ControlError: nobody answers there, or not this.
    """
    start = f"start a server with --control {path}, or give its path with --control"
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ControlError(f"{path} is not a control socket", start)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(path))
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = _line(sock)
    except FileNotFoundError:
        raise ControlError(f"there is no control socket at {path}", start) from None
    except ConnectionRefusedError:
        wrong = f"nobody answers at {path}: the program that made it is gone"
        raise ControlError(wrong, start) from None
    except PermissionError:
        wrong = f"{path} belongs to another user"
        raise ControlError(wrong, "run this as the user of the server, or as root") from None
    except TimeoutError:
        wrong = f"the program at {path} does not answer within {timeout:g} seconds"
        raise ControlError(wrong, "see whether it hangs") from None
    except OSError as error:
        raise ControlError(f"cannot ask at {path}: {error.strerror or error}", start) from error
    if not answer:
        raise ControlError(f"{path} was closed without an answer", "run this as the user of the server")
    try:
        parsed = json.loads(answer)
    except ValueError:
        raise ControlError(f"what is at {path} does not speak sealwire's language", start) from None
    if not isinstance(parsed, dict) or "answer" not in parsed:
        wrong = str(parsed.get("error")) if isinstance(parsed, dict) else "no answer"
        raise ControlError(f"the server refused: {wrong}", "use the same version of sealwire on both sides")
    return parsed["answer"]


def _line(sock: socket.socket) -> bytes:
    parts, size = [], 0
    while size < _ANSWER_BYTES:
        part = sock.recv(64 * 1024)
        parts.append(part)
        size += len(part)
        if not part or part.endswith(b"\n"):
            break
    return b"".join(parts)
