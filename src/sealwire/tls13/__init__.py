"""The handshake engine: whole messages in, outputs out; no records, sockets or clocks."""
