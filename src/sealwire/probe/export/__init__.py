"""From a spool to a collector: the exporter's process, and what its parent has of it."""

from sealwire.probe.export.parent import Export

__all__ = ["Export"]
