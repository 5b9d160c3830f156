"""Fixtures of the tests of the dtls room."""

from tests.unit.dtls.rig import tap

__all__ = ["tap"]
