"""wolfSSL as a program: one DTLS 1.3 peer on a UDP socket, told what to do in lines of JSON.

    python wolfssl_driver.py LIBRARY '{"role": "server", ...}'

wolfSSL comes as a library, so this is the program around it.  It runs in a process of its own
because the library wants a newer C library than this system has (:mod:`tests.interop.wolfssl`
starts it under that one), and uses nothing but the standard library of whatever Python that is.
The socket is wolfSSL's own business: it reads, writes and repeats by itself; here are the loop,
the clock and the words.

Options: role, port (client), certfile or raw_public_key (DER), keyfile, cafile (verify against it;
nobody is verified without), suites (its names), groups and key_shares (numbers), tickets (how many),
client_cert_types, server_cert_types (numbers of RFC 7250), psk {identity, secret, suite, dhe: only or
never}, srtp (names), staple (a server's OCSP response, as hex; a client: whether it asks), mtu, cid
(hex), alpn, cookie (server), server_name (client).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_ushort, c_void_p
from typing import Any

# Values of wolfssl/ssl.h and wolfssl/error-ssl.h.
_PEM, _DER = 1, 2
_VERIFY_PEER, _VERIFY_DEMAND = 1, 2
_WANT = (2, 3)  # WOLFSSL_ERROR_WANT_READ, ..._WANT_WRITE
_ZERO_RETURN = 6
_ALPN_FAILED_ON_MISMATCH = 2
_MESSAGE_BYTES = 16_384
_DATAGRAM_BYTES = 65_535

_PSK_CLIENT = CFUNCTYPE(
    c_uint, c_void_p, c_char_p, c_void_p, c_uint, c_void_p, c_uint, POINTER(c_char_p)
)  # fmt: skip
_PSK_SERVER = CFUNCTYPE(c_uint, c_void_p, c_char_p, c_void_p, c_uint, POINTER(c_char_p))

_STAPLE = CFUNCTYPE(c_int, c_void_p, c_void_p)

#: Function: result, arguments.  Pointers to what wolfSSL keeps to itself are all `c_void_p`.
_PROTOTYPES: dict[str, tuple[Any, Sequence[Any]]] = {
    "Init": (c_int, ()),
    "lib_version": (c_char_p, ()),
    "CTX_new": (c_void_p, (c_void_p,)),
    "CTX_use_certificate_chain_file": (c_int, (c_void_p, c_char_p)),
    "CTX_use_certificate_file": (c_int, (c_void_p, c_char_p, c_int)),
    "CTX_use_PrivateKey_file": (c_int, (c_void_p, c_char_p, c_int)),
    "CTX_load_verify_locations": (c_int, (c_void_p, c_char_p, c_char_p)),
    "CTX_set_verify": (None, (c_void_p, c_int, c_void_p)),
    "CTX_set_cipher_list": (c_int, (c_void_p, c_char_p)),
    "CTX_no_ticket_TLSv13": (c_int, (c_void_p,)),
    "CTX_set_num_tickets": (c_int, (c_void_p, c_size_t)),
    "CTX_set_client_cert_type": (c_int, (c_void_p, c_char_p, c_int)),
    "CTX_set_server_cert_type": (c_int, (c_void_p, c_char_p, c_int)),
    "CTX_set_psk_client_tls13_callback": (None, (c_void_p, _PSK_CLIENT)),
    "CTX_set_psk_server_tls13_callback": (None, (c_void_p, _PSK_SERVER)),
    "CTX_only_dhe_psk": (c_int, (c_void_p,)),
    "CTX_no_dhe_psk": (c_int, (c_void_p,)),
    "CTX_set_tlsext_use_srtp": (c_int, (c_void_p, c_char_p)),
    "new": (c_void_p, (c_void_p,)),
    "free": (None, (c_void_p,)),
    "set_fd": (c_int, (c_void_p, c_int)),
    "set_dtls_fd_connected": (c_int, (c_void_p, c_int)),
    "set_groups": (c_int, (c_void_p, POINTER(c_int), c_int)),
    "UseKeyShare": (c_int, (c_void_p, c_ushort)),
    "NoKeyShares": (c_int, (c_void_p,)),
    "UseSNI": (c_int, (c_void_p, c_ubyte, c_char_p, c_ushort)),
    "UseALPN": (c_int, (c_void_p, c_char_p, c_uint, c_ubyte)),
    "check_domain_name": (c_int, (c_void_p, c_char_p)),
    "dtls_set_using_nonblock": (None, (c_void_p, c_int)),
    "dtls_get_current_timeout": (c_int, (c_void_p,)),
    "dtls13_use_quick_timeout": (c_int, (c_void_p,)),
    "dtls13_has_pending_msg": (c_int, (c_void_p,)),
    "dtls_got_timeout": (c_int, (c_void_p,)),
    "dtls_set_pending_peer": (c_int, (c_void_p, c_char_p, c_uint)),
    "inject": (c_int, (c_void_p, c_char_p, c_int)),
    "dtls_set_mtu": (c_int, (c_void_p, c_ushort)),
    "dtls13_allow_ch_frag": (c_int, (c_void_p, c_int)),
    "dtls_cid_max_size": (c_int, ()),
    "dtls_cid_use": (c_int, (c_void_p,)),
    "dtls_cid_set": (c_int, (c_void_p, c_char_p, c_uint)),
    "dtls_cid_is_enabled": (c_int, (c_void_p,)),
    "dtls_cid_get_rx_size": (c_int, (c_void_p, POINTER(c_uint))),
    "dtls_cid_get_rx": (c_int, (c_void_p, c_char_p, c_uint)),
    "dtls_cid_get_tx_size": (c_int, (c_void_p, POINTER(c_uint))),
    "dtls_cid_get_tx": (c_int, (c_void_p, c_char_p, c_uint)),
    "send_hrr_cookie": (c_int, (c_void_p, c_char_p, c_uint)),
    "disable_hrr_cookie": (c_int, (c_void_p,)),
    "connect": (c_int, (c_void_p,)),
    "accept": (c_int, (c_void_p,)),
    "read": (c_int, (c_void_p, c_void_p, c_int)),
    "write": (c_int, (c_void_p, c_char_p, c_int)),
    "shutdown": (c_int, (c_void_p,)),
    "update_keys": (c_int, (c_void_p,)),
    "get_error": (c_int, (c_void_p, c_int)),
    "ERR_error_string_n": (None, (ctypes.c_ulong, c_char_p, ctypes.c_ulong)),
    "get_alert_history": (c_int, (c_void_p, POINTER(c_int * 4))),
    "get_cipher_name": (c_char_p, (c_void_p,)),
    "get_curve_name": (c_char_p, (c_void_p,)),
    "get_version": (c_char_p, (c_void_p,)),
    "session_reused": (c_int, (c_void_p,)),
    "get1_session": (c_void_p, (c_void_p,)),
    "set_session": (c_int, (c_void_p, c_void_p)),
    "get_psk_identity": (c_char_p, (c_void_p,)),
    "get_peer_certificate": (c_void_p, (c_void_p,)),
    "i2d_X509": (c_int, (c_void_p, POINTER(c_void_p))),
    "get_negotiated_client_cert_type": (c_int, (c_void_p, POINTER(c_int))),
    "get_negotiated_server_cert_type": (c_int, (c_void_p, POINTER(c_int))),
    "ALPN_GetProtocol": (c_int, (c_void_p, POINTER(c_char_p), POINTER(c_ushort))),
    "export_keying_material": (
        c_int, (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_char_p, c_size_t, c_int)
    ),
    "get_selected_srtp_profile": (POINTER(c_char_p), (c_void_p,)),
    "export_dtls_srtp_keying_material": (c_int, (c_void_p, c_char_p, POINTER(c_size_t))),
    "SNI_GetRequest": (c_ushort, (c_void_p, c_ubyte, POINTER(c_void_p))),
    "CTX_EnableOCSPStapling": (c_int, (c_void_p,)),
    "UseOCSPStapling": (c_int, (c_void_p, c_ubyte, c_ubyte)),
    "CTX_set_tlsext_status_cb": (c_int, (c_void_p, _STAPLE)),
    "set_tlsext_status_ocsp_resp": (ctypes.c_long, (c_void_p, c_void_p, c_int)),
    "Malloc": (c_void_p, (c_size_t,)),
}  # fmt: skip


class Library:
    """The functions of wolfSSL, by their names without the prefix."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._library, f"wolfSSL_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        for name in ("client", "server"):
            method = getattr(self._library, f"wolfDTLSv1_3_{name}_method")
            method.restype = c_void_p
            setattr(self, name, method)
        self.Init()

    def __getattr__(self, name: str) -> Any:
        """Whatever the prototypes name is set above; anything else is a mistake here."""
        raise AttributeError(name)

    def has(self, function: str) -> bool:
        """Whether the library has a function of that name (with its prefix)."""
        return hasattr(self._library, function)


def say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Peer:
    """A context with the options of the command line, and one connection at a time."""

    def __init__(self, library: Library, options: dict[str, Any]) -> None:
        self.library = library
        self.options = options
        self.serves = options["role"] == "server"
        self.context = self._make_context()
        self.session: int | None = None
        self.ssl: int | None = None
        self.sock = self._make_socket()
        self.begin()

    def demand(self, name: str, *arguments: Any) -> None:
        """Call a function that has to succeed."""
        result = getattr(self.library, name)(*arguments)
        good = 0 if name in _ZERO_IS_SUCCESS else 1
        if result != good:
            say("refused", function=name, result=result)
            raise SystemExit(1)

    def _make_context(self) -> int:
        library, options = self.library, self.options
        context: int = library.CTX_new((library.server if self.serves else library.client)())
        if key := options.get("raw_public_key"):
            self.demand("CTX_use_certificate_file", context, key.encode(), _DER)
            self.demand("CTX_use_PrivateKey_file", context, options["keyfile"].encode(), _PEM)
        elif certificate := options.get("certfile"):
            self.demand("CTX_use_certificate_chain_file", context, certificate.encode())
            self.demand("CTX_use_PrivateKey_file", context, options["keyfile"].encode(), _PEM)
        if roots := options.get("cafile"):
            self.demand("CTX_load_verify_locations", context, roots.encode(), None)
        # This build trusts everybody unless told not to.
        library.CTX_set_verify(context, _VERIFY_PEER | _VERIFY_DEMAND if roots else 0, None)
        if suites := options.get("suites"):
            self.demand("CTX_set_cipher_list", context, ":".join(suites).encode())
        tickets = options.get("tickets")
        if tickets == 0:
            self.demand("CTX_no_ticket_TLSv13", context)
        elif tickets is not None:
            self.demand("CTX_set_num_tickets", context, tickets)
        for side in ("client", "server"):
            if kinds := options.get(f"{side}_cert_types"):
                self.demand(f"CTX_set_{side}_cert_type", context, bytes(kinds), len(kinds))
        if options.get("psk"):
            self._set_psk(context, options["psk"])
        if profiles := options.get("srtp"):
            self.demand("CTX_set_tlsext_use_srtp", context, profiles.encode())
        if staple := options.get("staple"):
            self.demand("CTX_EnableOCSPStapling", context)
            if self.serves:
                self._set_staple(context, bytes.fromhex(staple))
        return context

    def _set_staple(self, context: int, response: bytes) -> None:
        def give(ssl: int, argument: int) -> int:
            # wolfSSL frees it.
            copy = self.library.Malloc(len(response))
            ctypes.memmove(copy, response, len(response))
            return 0 if self.library.set_tlsext_status_ocsp_resp(ssl, copy, len(response)) == 1 else 2

        self._staple_callback = _STAPLE(give)
        self.demand("CTX_set_tlsext_status_cb", context, self._staple_callback)

    def _set_psk(self, context: int, psk: dict[str, str]) -> None:
        identity, secret = psk["identity"].encode(), bytes.fromhex(psk["secret"])
        # Kept alive as long as this object: wolfSSL holds the bare pointers.
        suite = self._psk_suite = c_char_p(psk["suite"].encode())

        def client(ssl: int, hint: bytes, name: int, longest: int, key: int, most: int, chosen: Any) -> int:
            ctypes.memmove(name, identity + b"\0", len(identity) + 1)
            ctypes.memmove(key, secret, len(secret))
            chosen[0] = suite
            return len(secret)

        def server(ssl: int, asked: bytes, key: int, most: int, chosen: Any) -> int:
            if asked != identity:
                return 0
            ctypes.memmove(key, secret, len(secret))
            chosen[0] = suite
            return len(secret)

        self._psk_callbacks = (_PSK_CLIENT(client), _PSK_SERVER(server))
        if self.serves:
            self.library.CTX_set_psk_server_tls13_callback(context, self._psk_callbacks[1])
        else:
            self.library.CTX_set_psk_client_tls13_callback(context, self._psk_callbacks[0])
        if (dhe := psk.get("dhe")) is not None:
            self.demand({"only": "CTX_only_dhe_psk", "never": "CTX_no_dhe_psk"}[dhe], context)

    def _make_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        if self.serves:
            sock.bind(("127.0.0.1", 0))
            say("port", port=sock.getsockname()[1])
        else:
            sock.connect(("127.0.0.1", self.options["port"]))
        sock.setblocking(False)
        return sock

    def begin(self) -> None:
        """A connection, from its start."""
        library, options = self.library, self.options
        ssl = self.ssl = library.new(self.context)
        self.connected = self.done = self.closing = False
        self.received, self.digest = 0, hashlib.sha256()
        library.dtls_set_using_nonblock(ssl, 1)
        self._set_socket()
        if groups := options.get("groups"):
            self.demand("set_groups", ssl, (c_int * len(groups))(*groups), len(groups))
        if shares := options.get("key_shares"):
            for group in shares:
                self.demand("UseKeyShare", ssl, group)
        elif shares is not None:
            self.demand("NoKeyShares", ssl)
        if mtu := options.get("mtu"):
            self.demand("dtls_set_mtu", ssl, mtu)
        if (cid := options.get("cid")) is not None:
            self.demand("dtls_cid_use", ssl)
            self.demand("dtls_cid_set", ssl, bytes.fromhex(cid), len(cid) // 2)
        if protocols := options.get("alpn"):
            names = ",".join(protocols).encode()
            self.demand("UseALPN", ssl, names, len(names), _ALPN_FAILED_ON_MISMATCH)
        if self.serves:
            if options.get("cookie", True):
                self.demand("send_hrr_cookie", ssl, None, 0)
            else:
                self.demand("disable_hrr_cookie", ssl)
            self.demand("dtls13_allow_ch_frag", ssl, 1)
        if not self.serves and options.get("staple"):
            self.demand("UseOCSPStapling", ssl, 1, 0)
        if not self.serves and (name := options.get("server_name")):
            self.demand("UseSNI", ssl, 0, name.encode(), len(name))
            if options.get("cafile"):
                self.demand("check_domain_name", ssl, name.encode())
        if self.session is not None:
            self.demand("set_session", ssl, self.session)

    def _set_socket(self) -> None:
        self.demand("set_fd" if self.serves else "set_dtls_fd_connected", self.ssl, self.sock.fileno())

    # --- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Until the input ends."""
        pending = b""
        os.set_blocking(0, False)
        while True:
            if not self.done:
                self.advance()
            start = time.monotonic()
            wait = self._timeout()
            sources = [0] if self.done else [0, self.sock.fileno()]
            readable, _, _ = select.select(sources, [], [], wait)
            if 0 in readable:
                data = os.read(0, 1 << 20)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.obey(**json.loads(line))
            elif not readable and wait is not None and time.monotonic() - start >= wait:
                self.library.dtls_got_timeout(self.ssl)

    def _timeout(self) -> float | None:
        library = self.library
        if self.done or (self.connected and not library.dtls13_has_pending_msg(self.ssl)):
            return None
        seconds: float = library.dtls_get_current_timeout(self.ssl)
        return seconds / 4 if library.dtls13_use_quick_timeout(self.ssl) else seconds

    def advance(self) -> None:
        """Whatever the socket holds, and what follows from it."""
        library, ssl = self.library, self.ssl
        if not self.connected:
            result = (library.accept if self.serves else library.connect)(ssl)
            if result != 1:
                self._check(result)
                return
            self.connected = True
            self._say_connected()
        buffer = ctypes.create_string_buffer(_MESSAGE_BYTES)
        while not self.done:
            if self.serves and self.options.get("cid"):
                self._take_from_anywhere()
            n = library.read(ssl, buffer, _MESSAGE_BYTES)
            if n <= 0:
                self._check(n)
                return
            data = buffer.raw[:n]
            self.received += n
            self.digest.update(data)
            say("data", n=self.received, sha256=self.digest.hexdigest(), hex=data[:64].hex())

    def _take_from_anywhere(self) -> None:
        """Give wolfSSL the next datagram and its source; if it authenticates, the peer is there now.

        By itself it reads from one address only.
        """
        try:
            datagram, (host, port) = self.sock.recvfrom(_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        # A sockaddr_in: family in the machine's order, port and address in the network's.
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
        self.demand("dtls_set_pending_peer", self.ssl, address, len(address))
        self.demand("inject", self.ssl, datagram, len(datagram))

    def _check(self, result: int) -> None:
        error = self.library.get_error(self.ssl, result)
        if error in _WANT:
            return
        if error == _ZERO_RETURN:
            say("peer closed")
            self.done = True
            return
        text = ctypes.create_string_buffer(80)
        self.library.ERR_error_string_n(error & (1 << 64) - 1, text, 80)
        alerts = (c_int * 4)()
        self.library.get_alert_history(self.ssl, alerts)
        say("failed", error=error, text=text.value.decode(), alert_received=alerts[0], alert_sent=alerts[2])
        self.done = True

    def _say_connected(self) -> None:
        library, ssl = self.library, self.ssl
        identity = library.get_psk_identity(ssl)
        protocol, n = c_char_p(), c_ushort()
        agreed = library.ALPN_GetProtocol(ssl, protocol, n) == 1
        types = {}
        for side in ("client", "server"):
            kind = c_int(-1)
            getattr(library, f"get_negotiated_{side}_cert_type")(ssl, kind)
            types[f"{side}_cert_type"] = kind.value
        profile = library.get_selected_srtp_profile(ssl)
        say(
            "connected",
            version=library.get_version(ssl).decode(),
            suite=library.get_cipher_name(ssl).decode(),
            group=(library.get_curve_name(ssl) or b"").decode(),
            resumed=bool(library.session_reused(ssl)),
            psk_identity=identity.decode(errors="replace") if identity else None,
            certificate=self._peer_certificate(),
            alpn=(protocol.value or b"")[: n.value].decode() if agreed else None,
            cid_receive=self._cid("rx"),
            cid_send=self._cid("tx"),
            srtp=profile[0].decode() if profile else None,
            srtp_keys=self._srtp_keys() if profile else None,
            server_name=self._server_name() if self.serves else None,
            exporter=self._export(b"EXPORTER-sealwire-interop", b"context"),
            **types,
        )

    def _peer_certificate(self) -> str | None:
        """SHA-256 of the peer's certificate."""
        certificate = self.library.get_peer_certificate(self.ssl)
        if not certificate:
            return None
        n = self.library.i2d_X509(certificate, None)
        buffer = ctypes.create_string_buffer(max(n, 1))
        place = c_void_p(ctypes.addressof(buffer))
        self.library.i2d_X509(certificate, place)
        return hashlib.sha256(buffer.raw[:n]).hexdigest()

    def _srtp_keys(self) -> str | None:
        """Keys of both sides, then their salts, as the exporter gives them."""
        n = c_size_t()
        self.library.export_dtls_srtp_keying_material(self.ssl, None, n)
        buffer = ctypes.create_string_buffer(n.value)
        result = self.library.export_dtls_srtp_keying_material(self.ssl, buffer, n)
        return buffer.raw[: n.value].hex() if result == 1 else None

    def _server_name(self) -> str | None:
        name = c_void_p()
        n = self.library.SNI_GetRequest(self.ssl, 0, name)
        return ctypes.string_at(name.value, n).decode() if n and name.value else None

    def _cid(self, direction: str) -> str | None:
        size = c_uint()
        if getattr(self.library, f"dtls_cid_get_{direction}_size")(self.ssl, size) != 1:
            return None
        buffer = ctypes.create_string_buffer(max(size.value, 1))
        if size.value:
            self.demand(f"dtls_cid_get_{direction}", self.ssl, buffer, size.value)
        return buffer.raw[: size.value].hex()

    def _export(self, label: bytes, context: bytes) -> str | None:
        buffer = ctypes.create_string_buffer(32)
        result = self.library.export_keying_material(
            self.ssl, buffer, 32, label, len(label), context, len(context), 1
        )
        return buffer.raw.hex() if result == 1 else None

    # --- commands -----------------------------------------------------------------------------

    def obey(self, do: str, **details: Any) -> None:
        getattr(self, f"do_{do}")(**details)

    def do_send(self, data_hex: str) -> None:
        data = bytes.fromhex(data_hex)
        result = self.library.write(self.ssl, data, len(data))
        if result != len(data):
            self._check(result)

    def do_update(self) -> None:
        """KeyUpdate; wolfSSL asks for ours with it."""
        result = self.library.update_keys(self.ssl)
        if result == 1 or self.library.get_error(self.ssl, result) in _WANT:
            say("updating")
        else:
            self._check(result)

    def do_close(self) -> None:
        say("closing", result=self.library.shutdown(self.ssl))

    def do_rebind(self) -> None:
        """A client: the same connection from another port."""
        self.old = self.sock  # left open, so that the port stays taken
        self.sock = self._make_socket()
        self._set_socket()

    def do_again(self, resume: bool = False) -> None:
        """Another connection: a server waits for it, a client begins it."""
        if resume:
            self.session = self.library.get1_session(self.ssl)
        self.library.free(self.ssl)
        if not self.serves:
            self.sock.close()
            self.sock = self._make_socket()
        self.begin()
        say("again")

    def do_functions(self, names: list[str]) -> None:
        say("functions", present=[name for name in names if self.library.has(name)])


#: These return 0 for success, all others that are demanded 1.
_ZERO_IS_SUCCESS = frozenset(
    {"CTX_no_ticket_TLSv13", "CTX_only_dhe_psk", "CTX_no_dhe_psk", "CTX_set_tlsext_use_srtp"}
)


def main(path: str, options: str) -> None:
    library = Library(path)
    say("version", version=library.lib_version().decode(), longest_cid=library.dtls_cid_max_size())
    with contextlib.suppress(KeyboardInterrupt):
        Peer(library, json.loads(options)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
