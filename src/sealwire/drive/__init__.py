"""Drivers: the engines on sockets, clocks and event loops."""

from sealwire.drive.aio import open_connection, start_server

__all__ = ["open_connection", "start_server"]
