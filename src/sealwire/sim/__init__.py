"""A simulated world for the real engines: links on virtual time, driven by seeds."""

from sealwire.sim.link import Crossing, EndpointPair, Fate, Link, LinkCounters, Pair, Stalled

__all__ = ["Crossing", "EndpointPair", "Fate", "Link", "LinkCounters", "Pair", "Stalled"]
