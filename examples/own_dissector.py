"""A dissector of one's own beside those of sealwire: what the flows of a capture speak.

python examples/own_dissector.py CAPTURE
"""

import collections
import sys

import sealwire.probe
from sealwire.probe import Answer, Certainty, Dissector


class Syslog(Dissector):
    """Syslog over UDP (RFC 5424, RFC 3164): a priority in angle brackets in front of everything."""

    application = "syslog"
    transports = frozenset({17})

    def dissect(self, opening):
        priority, bracket, _ = opening.packets[0].data.partition(b">")
        if bracket and priority[:1] == b"<" and priority[1:].isdigit() and int(priority[1:]) < 192:
            # Other things may begin so; its port makes it likely.
            return (
                Answer(Certainty.UNSURE, {"priority": priority[1:].decode()})
                if opening.has_port(514)
                else None
            )
        return None


spoken = collections.Counter()
for flow in sealwire.probe.read(sys.argv[1], dissect=True, dissectors=[Syslog()]):
    spoken[flow.application or "unknown"] += 1
    if flow.server_name:
        print(f"{flow.source} > {flow.destination}: {flow.application} with {flow.server_name}")
for application, flows in sorted(spoken.items()):
    print(f"{flows} flows of {application}")
