"""Flame graphs of the bulk path and of the handshake, as docs/img has them.

    python benchmarks/flame.py handshake|resumed|sender|receiver FILE.svg [--seconds 10]

py-spy (`pip install py-spy`; nothing here needs it) samples a process that does nothing else: full or
resumed handshakes in memory, both sides; or one side of bulk over loopback, messages of 1,200 B.  What native
code costs is shown in the Python function that called it.  Widths are shares of samples; a frame that has
less than a third of a percent is left out.  The picture needs no script: the words are in the titles.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

WIDTH, ROW = 1200.0, 17
LEAST = 1 / 300
#: Where code is from, by what its file's path has in it, and how it is painted.
ROOMS = (
    ("/tls13/", "handshake engine", "#e8a05a"),
    ("/dtls/", "DTLS: records, flights, connections", "#e06c5a"),
    ("/record/", "record layer", "#5a9be0"),
    ("/crypto/", "crypto, and what calls it", "#4fa37c"),
    ("/drive/", "sockets and event loop", "#b48ad6"),
    ("sealwire/", "the rest of sealwire", "#d6c14a"),
    ("", "other Python code", "#b8b8b8"),
)


@dataclass(slots=True)
class Frame:
    """A function called from one place, and what it called."""

    name: str
    samples: int = 0
    calls: dict[str, Frame] = field(default_factory=dict)


# --- what is sampled -----------------------------------------------------------------------------


def shake_hands(place: Path, resumed: bool) -> None:
    """Handshakes in memory, for ever."""
    import sealwire
    from sealwire import dtls

    server, client = sealwire.Context(sealwire.PROTOCOL_SERVER), sealwire.Context(sealwire.PROTOCOL_CLIENT)
    server.load_cert_chain(place / "server.pem", place / "server.key")
    client.load_verify_locations(cafile=place / "ca.pem")
    for context in (server, client):
        context.set_groups("x25519")
    if not resumed:
        server.num_tickets = 0
    serving, asking = server.config(), client.config()
    tickets: list[sealwire.dtls.SessionTicket] = []
    now = 0.0
    while True:
        now += 1.0
        ticket = tickets.pop() if resumed and tickets else None
        ours = dtls.Connection.client(asking, now=now, server_name="localhost", ticket=ticket)
        theirs = dtls.Connection.server(serving, now=now)
        for _ in range(8):
            theirs.receive_run(ours.transmit(now), now)
            theirs.events()
            back = theirs.transmit(now)
            ours.receive_run(back, now)
            tickets += [event.ticket for event in ours.events() if isinstance(event, dtls.TicketReceived)][:1]
            if ours.was_connected and theirs.was_connected and not back:
                break
        assert ours.was_connected
        assert ours.session.resumed == (ticket is not None)
        ours.abort()
        theirs.abort()


class Work:
    """A process that does the work, and whatever that needs."""

    def __init__(self, what: str, place: Path, seconds: float) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        bulk = [sys.executable, str(Path(__file__).with_name("bulk_profile.py")), "--place", str(place)]
        if what in ("handshake", "resumed"):
            self.sampled = self._start([sys.executable, __file__, what, "-", "--work", str(place)])
            time.sleep(1.0)  # what is made once is made
            return
        receiver = self._start([*bulk, "--role", "serve"])
        assert receiver.stdout is not None
        port = receiver.stdout.readline().strip()
        sender = self._start([*bulk, "--role", "pour", "--port", port, "--seconds", str(seconds + 5)])
        self.sampled = sender if what == "sender" else receiver
        time.sleep(1.5)

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self.processes[-1]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


# --- the picture ---------------------------------------------------------------------------------


def stacks(folded: str) -> Frame:
    """The lines of py-spy, ``outer (file:line);inner (file:line) count``, as one tree of functions."""
    root = Frame("all")
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frame = root
        frame.samples += int(count)
        for part in stack.split(";"):
            name = part.rpartition(":")[0] + ")" if part.endswith(")") and ":" in part else part
            frame = frame.calls.setdefault(name, Frame(name))
            frame.samples += int(count)
    return root


def trunk(root: Frame) -> Frame:
    """Where the tree first branches: what is below is how every program begins."""
    frame = root
    while len(frame.calls) == 1:
        (frame,) = frame.calls.values()
    return frame


def boxes(
    frame: Frame, x: float, level: int, unit: float, least: float
) -> Iterator[tuple[float, int, float, Frame]]:
    yield x, level, frame.samples * unit, frame
    for called in sorted(frame.calls.values(), key=lambda one: one.name):
        if called.samples >= least:
            yield from boxes(called, x, level + 1, unit, least)
        x += called.samples * unit


def colour(name: str) -> str:
    return next(paint for part, _, paint in ROOMS if part in name)


def draw(root: Frame, title: str) -> str:
    base = trunk(root)
    found = list(boxes(base, 0.0, 0, WIDTH / base.samples, base.samples * LEAST))
    height = (max(level for _, level, _, _ in found) + 4) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" '
        'font-family="ui-monospace, monospace" font-size="11">',
        f"<title>{escape(title)}</title>",
        f'<text x="4" y="13" font-size="13">{escape(title)}</text>',
    ]
    x = 4.0
    for _, words, paint in ROOMS:
        lines.append(f'<rect x="{x:.0f}" y="{ROW + 4}" width="10" height="10" fill="{paint}"/>')
        lines.append(f'<text x="{x + 14:.0f}" y="{ROW + 13}">{escape(words)}</text>')
        x += 30 + 6.8 * len(words)
    for x, level, width, frame in found:
        y = (level + 2.5) * ROW
        name, _, where = frame.name.partition(" (")
        share = frame.samples / base.samples
        lines.append(
            f"<g><title>{escape(f'{name} ({short(where)}: {share:.1%}')}</title>"
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" '
            f'fill="{colour(frame.name)}"/>'
        )
        room = int((width - 4) / 6.7)
        if room >= 3:
            lines.append(f'<text x="{x + 2:.1f}" y="{y + 12:.1f}">{escape(name[:room])}</text>')
        lines.append("</g>")
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def short(where: str) -> str:
    return (
        "sealwire/" + where.rpartition("sealwire/")[2] if "sealwire/" in where else where.rpartition("/")[2]
    )


def table(root: Frame) -> list[str]:
    """Shares of the rooms, by the innermost frame."""
    own: dict[str, int] = {}

    def walk(frame: Frame) -> None:
        below = sum(called.samples for called in frame.calls.values())
        words = next(words for part, words, _ in ROOMS if part in frame.name)
        own[words] = own.get(words, 0) + frame.samples - below
        for called in frame.calls.values():
            walk(called)

    walk(root)
    return [f"{own.get(words, 0) / root.samples:6.1%}  {words}" for _, words, _ in ROOMS]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("handshake", "resumed", "sender", "receiver"))
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--title", default="", help="above the picture")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        shake_hands(options.work, options.what == "resumed")
    with tempfile.TemporaryDirectory(prefix="sealwire-") as temporary:
        place = Path(temporary)
        subprocess.run(
            [sys.executable, "-m", "sealwire.cli", "cert", "--dir", temporary],
            check=True,
            capture_output=True,
        )
        work = Work(options.what, place, options.seconds)
        try:
            command = ["py-spy", "record", "-f", "raw", "-r", "400", "-d", f"{options.seconds:.0f}", "-o"]
            command += [str(place / "folded"), "-p", str(work.sampled.pid), "--nonblocking"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            work.end()
        if not (place / "folded").exists():
            print(done.stderr or done.stdout, file=sys.stderr)
            return 3
        root = stacks((place / "folded").read_text())
    title = options.title or f"{options.what}, {root.samples:,} samples"
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(draw(root, title))
    print(title, *table(root), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
