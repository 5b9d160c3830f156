"""NSS as a program: one DTLS 1.3 peer on a UDP socket, told what to do in lines of JSON.

    python nss_driver.py LIBRARIES '{"role": "server", "database": "sql:...", ...}'

tstclnt, NSS's own program, has no words for much of what the library can: key updates, a server that
asks for certificates or resumes, early data, record_size_limit.  This one has.  It runs in a process
of its own because NSS keeps its databases per process, and uses nothing but the standard library.

Options: role, port (client), database (its key is called "own"), suites, groups and schemes (numbers),
key_shares (how many), server_name, client_certificate (a client shows "own"), want_certificate
(a server demands one), cookie, psk {identity, secret, hash}, tickets, early_data, record_size_limit,
short_headers, srtp (numbers), alpn, early (a client's early data, as hex), staple (a server's OCSP
response, as hex; a client: whether it asks for one), compress (whether certificates may be, with zlib).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import select
import socket
import sys
import zlib
from collections.abc import Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_ubyte,
    c_uint,
    c_uint16,
    c_uint32,
    c_void_p,
)  # fmt: skip
from typing import Any

# Values of nss/ssl.h, nss/sslt.h and nspr/prerr.h.
_DTLS_1_3 = 0x0304
_OPTIONS = {
    "security": 1, "request_certificate": 3, "as_client": 5, "as_server": 6, "no_cache": 9,
    "require_certificate": 10, "tickets": 18, "staple": 24, "alpn": 26, "early_data": 33,
    "record_size_limit": 34, "short_headers": 36, "no_end_of_early_data": 41,
}  # fmt: skip
_HASHES = {"sha256": 4, "sha384": 5}
_WOULD_BLOCK = -5998
_HKDF_KEY_GEN, _ORIGIN_UNWRAP, _DERIVE = 0x402C, 4, 0x10C
_SHUTDOWN_SEND = 1
_RETRY_ACCEPT, _RETRY_REQUEST = 1, 2
_COOKIE = b"a cookie of the driver"
_MESSAGE_BYTES = 16_384


class _Range(Structure):
    _fields_ = (("minimum", c_uint16), ("maximum", c_uint16))


class _SocketOption(Structure):
    """PRSocketOptionData: which, and a union as wide as two words."""

    _fields_ = (("option", c_int), ("value", c_int64 * 4))


class _Item(Structure):
    """SECItem."""

    _fields_ = (("type", c_int), ("data", c_char_p), ("length", c_uint))


_ENCODE = CFUNCTYPE(c_int, c_void_p, c_void_p)
_DECODE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t, POINTER(c_size_t))


class _Compression(Structure):
    """SSLCertificateCompressionAlgorithm; NSS leaves the work to functions of the application."""

    _fields_ = (("id", c_uint16), ("name", c_char_p), ("encode", _ENCODE), ("decode", _DECODE))


class _Pointers(Structure):
    """SECItem again, with a pointer that does not stop at a zero byte."""

    _fields_ = (("type", c_int), ("data", c_void_p), ("length", c_uint))


class _ItemArray(Structure):
    """SECItemArray."""

    _fields_ = (("items", POINTER(_Item)), ("length", c_uint))


class _ServerCertificate(Structure):
    """SSLExtraServerCertData; an auth_type of 0 leaves what the key is used for to NSS."""

    _fields_ = (
        ("auth_type", c_int), ("chain", c_void_p), ("staples", POINTER(_ItemArray)), ("timestamps", c_void_p),
        ("delegated", c_void_p), ("delegated_key", c_void_p),
    )  # fmt: skip


class _ChannelInfo(Structure):
    """SSLChannelInfo, as NSS 3.110 has it; NSS fills as much as it is asked for."""

    _fields_ = (
        ("length", c_uint32), ("version", c_uint16), ("suite", c_uint16), ("auth_key_bits", c_uint32),
        ("kea_key_bits", c_uint32), ("created", c_uint32), ("accessed", c_uint32), ("expires", c_uint32),
        ("session_id_length", c_uint32), ("session_id", c_ubyte * 32), ("compression_name", c_char_p),
        ("compression", c_int), ("extended_master_secret", c_int), ("early_data_accepted", c_int),
        ("kea_type", c_int), ("group", c_int), ("cipher", c_int), ("mac", c_int), ("auth_type", c_int),
        ("scheme", c_int), ("original_group", c_int), ("resumed", c_int), ("delegated", c_int),
        ("psk_type", c_int),
    )  # fmt: skip


_ALERT = CFUNCTYPE(None, c_void_p, c_void_p, POINTER(c_ubyte * 2))
_RETRY = CFUNCTYPE(
    c_int, c_int, c_void_p, c_uint, POINTER(c_ubyte), POINTER(c_uint), c_uint, c_void_p
)  # fmt: skip

#: Library, function: result, arguments.
_PROTOTYPES: dict[tuple[str, str], tuple[Any, Sequence[Any]]] = {
    ("nss3", "NSS_Init"): (c_int, (c_char_p,)),
    ("nss3", "NSS_GetVersion"): (c_char_p, ()),
    ("ssl3", "NSS_GetClientAuthData"): (c_int, ()),
    ("nss3", "PK11_FindCertFromNickname"): (c_void_p, (c_char_p, c_void_p)),
    ("nss3", "PK11_FindKeyByAnyCert"): (c_void_p, (c_void_p, c_void_p)),
    ("nss3", "PK11_GetInternalSlot"): (c_void_p, ()),
    ("nss3", "SECITEM_AllocItem"): (c_void_p, (c_void_p, c_void_p, c_uint)),
    ("nss3", "PK11_ImportSymKey"): (
        c_void_p, (c_void_p, ctypes.c_ulong, c_int, ctypes.c_ulong, POINTER(_Item), c_void_p)
    ),
    ("nspr4", "PR_ImportUDPSocket"): (c_void_p, (c_int,)),
    ("nspr4", "PR_SetSocketOption"): (c_int, (c_void_p, POINTER(_SocketOption))),
    ("nspr4", "PR_GetError"): (c_int, ()),
    ("nspr4", "PR_ErrorToName"): (c_char_p, (c_int,)),
    ("nspr4", "PR_Read"): (c_int, (c_void_p, c_void_p, c_int)),
    ("nspr4", "PR_Write"): (c_int, (c_void_p, c_char_p, c_int)),
    ("nspr4", "PR_Shutdown"): (c_int, (c_void_p, c_int)),
    ("nspr4", "PR_Close"): (c_int, (c_void_p,)),
    ("nspr4", "PR_IntervalToMilliseconds"): (c_uint32, (c_uint32,)),
    ("nspr4", "PR_Now"): (c_int64, ()),
    ("ssl3", "DTLS_ImportFD"): (c_void_p, (c_void_p, c_void_p)),
    ("ssl3", "DTLS_GetHandshakeTimeout"): (c_int, (c_void_p, POINTER(c_uint32))),
    ("ssl3", "SSL_OptionSet"): (c_int, (c_void_p, c_int, c_int)),
    ("ssl3", "SSL_VersionRangeSet"): (c_int, (c_void_p, POINTER(_Range))),
    ("ssl3", "SSL_CipherPrefSet"): (c_int, (c_void_p, c_int, c_int)),
    ("ssl3", "SSL_GetImplementedCiphers"): (POINTER(c_uint16), ()),
    ("ssl3", "SSL_GetNumImplementedCiphers"): (c_uint16, ()),
    ("ssl3", "SSL_SignatureSchemePrefSet"): (c_int, (c_void_p, POINTER(c_int), c_uint)),
    ("ssl3", "SSL_NamedGroupConfig"): (c_int, (c_void_p, POINTER(c_int), c_uint)),
    ("ssl3", "SSL_SendAdditionalKeyShares"): (c_int, (c_void_p, c_uint)),
    ("ssl3", "SSL_ConfigServerCert"): (c_int, (c_void_p, c_void_p, c_void_p, c_void_p, c_uint)),
    ("ssl3", "SSL_ConfigServerSessionIDCache"): (c_int, (c_int, c_uint32, c_uint32, c_char_p)),
    ("ssl3", "SSL_GetClientAuthDataHook"): (c_int, (c_void_p, c_void_p, c_char_p)),
    ("ssl3", "SSL_SetURL"): (c_int, (c_void_p, c_char_p)),
    ("ssl3", "SSL_SetNextProtoNego"): (c_int, (c_void_p, c_char_p, c_uint)),
    ("ssl3", "SSL_GetNextProto"): (
        c_int, (c_void_p, POINTER(c_int), c_char_p, POINTER(c_uint), c_uint)
    ),
    ("ssl3", "SSL_SetSRTPCiphers"): (c_int, (c_void_p, POINTER(c_uint16), c_uint)),
    ("ssl3", "SSL_GetSRTPCipher"): (c_int, (c_void_p, POINTER(c_uint16))),
    ("ssl3", "SSL_ResetHandshake"): (c_int, (c_void_p, c_int)),
    ("ssl3", "SSL_ForceHandshake"): (c_int, (c_void_p,)),
    ("ssl3", "SSL_AlertReceivedCallback"): (c_int, (c_void_p, _ALERT, c_void_p)),
    ("ssl3", "SSL_AlertSentCallback"): (c_int, (c_void_p, _ALERT, c_void_p)),
    ("ssl3", "SSL_GetChannelInfo"): (c_int, (c_void_p, POINTER(_ChannelInfo), c_uint)),
    ("ssl3", "SSL_PeerCertificate"): (c_void_p, (c_void_p,)),
    ("ssl3", "SSL_PeerStapledOCSPResponses"): (POINTER(_ItemArray), (c_void_p,)),
    ("ssl3", "SSL_ExportKeyingMaterial"): (
        c_int, (c_void_p, c_char_p, c_uint, c_int, c_char_p, c_uint, c_char_p, c_uint)
    ),
    ("ssl3", "SSL_GetExperimentalAPI"): (c_void_p, (c_char_p,)),
}  # fmt: skip
_EXPERIMENTAL: dict[str, Sequence[Any]] = {
    "KeyUpdate": (c_void_p, c_int),
    "AddExternalPsk": (c_void_p, c_void_p, c_char_p, c_uint, c_int),
    "CreateAntiReplayContext": (c_int64, c_int64, c_uint, c_uint, POINTER(c_void_p)),
    "SetAntiReplayContext": (c_void_p, c_void_p),
    "HelloRetryRequestCallback": (c_void_p, _RETRY, c_void_p),
    "SetCertificateCompressionAlgorithm": (c_void_p, _Compression),
}
# Of a CERTCertificate: where its derCert lies (an arena, two strings, a signed data of four items).
_DER_CERT_OFFSET = 120


class Library:
    """The functions of NSS by their names."""

    def __init__(self, directory: str) -> None:
        libraries = {name: ctypes.CDLL(f"{directory}/lib{name}.so") for name in ("nspr4", "nss3", "ssl3")}
        for (library, name), (result, arguments) in _PROTOTYPES.items():
            function = getattr(libraries[library], name)
            function.restype = result
            if arguments:
                function.argtypes = arguments
            setattr(self, name, function)
        for name, arguments in _EXPERIMENTAL.items():
            address = self.SSL_GetExperimentalAPI(f"SSL_{name}".encode())
            setattr(self, name, CFUNCTYPE(c_int, *arguments)(address) if address else None)

    def __getattr__(self, name: str) -> Any:
        """Whatever the prototypes name is set above; anything else is a mistake here."""
        raise AttributeError(name)


def _bytes_of(item: int) -> bytes:
    """What a SECItem at that address holds."""
    pointers = _Pointers.from_address(item)
    return ctypes.string_at(pointers.data, pointers.length)


def say(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Peer:
    """NSS with the options of the command line, and one connection at a time."""

    def __init__(self, library: Library, options: dict[str, Any]) -> None:
        self.library = library
        self.options = options
        self.serves = options["role"] == "server"
        self._callbacks: list[Any] = []
        #: How often NSS had a certificate compressed, and took one.
        self.packed = self.unpacked = 0
        self.demand("NSS_Init", options["database"].encode())
        self._replays = c_void_p()
        if self.serves:
            # Without a cache NSS divides by its size, zero, when a handshake fails.
            self.demand("SSL_ConfigServerSessionIDCache", 0, 0, 0, None)
        if self.serves and options.get("early_data"):
            window = 10_000_000  # microseconds
            self.demand("CreateAntiReplayContext", library.PR_Now() - window, window, 7, 14, self._replays)
        self.port = 0
        self.begin()

    def demand(self, name: str, *arguments: Any) -> None:
        """Call a function that has to succeed (SECSuccess and PR_SUCCESS are 0)."""
        function = getattr(self.library, name)
        if function is None or function(*arguments) != 0:
            say("refused", function=name, error=self._error())
            raise SystemExit(1)

    def _error(self) -> str:
        name = self.library.PR_ErrorToName(self.library.PR_GetError())
        return name.decode() if name else str(self.library.PR_GetError())

    def begin(self) -> None:
        """A connection, from its start; a server's socket waits for somebody first."""
        self.fd: int | None = None
        self.connected = self.done = False
        self.received, self.digest = 0, hashlib.sha256()
        self.alerts = {"received": -1, "sent": -1}
        self.waiting: socket.socket | None = self._make_socket()
        self.descriptor = self.waiting.fileno()
        if not self.serves:
            self._start()

    def _make_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        if not self.serves:
            sock.connect(("127.0.0.1", self.options["port"]))
        else:
            sock.bind(("127.0.0.1", self.port))
            if not self.port:
                self.port = sock.getsockname()[1]
                say("port", port=self.port)
        return sock

    def _start(self) -> None:
        """Hand the connected socket to NSS and say what it may do."""
        library, options = self.library, self.options
        assert self.waiting is not None
        plain = library.PR_ImportUDPSocket(self.waiting.detach())
        self.waiting = None
        nonblocking = _SocketOption(0)
        nonblocking.value[0] = 1
        self.demand("PR_SetSocketOption", plain, nonblocking)
        fd = self.fd = library.DTLS_ImportFD(None, plain)
        self.set("security", 1)
        self.set("as_server" if self.serves else "as_client", 1)
        self.demand("SSL_VersionRangeSet", fd, _Range(_DTLS_1_3, _DTLS_1_3))
        self._watch_alerts()
        if suites := options.get("suites"):
            for suite in (0x1301, 0x1302, 0x1303):
                self.demand("SSL_CipherPrefSet", fd, suite, suite in suites)
        if groups := options.get("groups"):
            self.demand("SSL_NamedGroupConfig", fd, (c_int * len(groups))(*groups), len(groups))
        if schemes := options.get("schemes"):
            self.demand("SSL_SignatureSchemePrefSet", fd, (c_int * len(schemes))(*schemes), len(schemes))
        if more := options.get("key_shares"):
            self.demand("SSL_SendAdditionalKeyShares", fd, more - 1)
        for name in ("tickets", "early_data", "record_size_limit", "short_headers"):
            if (value := options.get(name)) is not None:
                self.set(name, value)
        # NSS sends and wants EndOfEarlyData in DTLS too, where RFC 9147 section 5.6 does without, unless
        # it is told not to (an option made for QUIC).
        self.set("no_end_of_early_data", 1)
        self.set("staple", bool(options.get("staple")))
        if options.get("compress"):
            self._compress()
        if psk := options.get("psk"):
            self._add_psk(psk)
        if profiles := options.get("srtp"):
            numbers = (c_uint16 * len(profiles))(*profiles)
            self.demand("SSL_SetSRTPCiphers", fd, numbers, len(profiles))
        if protocols := options.get("alpn"):
            # NSS's own order: the first is the one to fall back to, so it is said last here.
            self.set("alpn", 1)
            names = b"".join(bytes((len(each),)) + each.encode() for each in protocols)
            self.demand("SSL_SetNextProtoNego", fd, names, len(names))
        if self.serves:
            self._be_server()
        else:
            self.demand("SSL_SetURL", fd, options.get("server_name", "localhost").encode())
            if options.get("client_certificate"):
                hook = ctypes.cast(library.NSS_GetClientAuthData, c_void_p)
                self.demand("SSL_GetClientAuthDataHook", fd, hook, b"own")
        self.demand("SSL_ResetHandshake", fd, int(self.serves))

    def set(self, option: str, value: int) -> None:
        self.demand("SSL_OptionSet", self.fd, _OPTIONS[option], int(value))

    def _compress(self) -> None:
        """Take and give certificates compressed with zlib (RFC 8879), and count both."""

        def encode(given: int, out: int) -> int:
            packed = zlib.compress(_bytes_of(given))
            item = self.library.SECITEM_AllocItem(None, out, len(packed))
            ctypes.memmove(_Pointers.from_address(item).data, packed, len(packed))
            self.packed += 1
            return 0

        def decode(given: int, out: int, room: int, used: Any) -> int:
            plain = zlib.decompress(_bytes_of(given))
            ctypes.memmove(out, plain[:room], min(room, len(plain)))
            used[0] = min(room, len(plain))
            self.unpacked += 1
            return 0

        functions = (_ENCODE(encode), _DECODE(decode))
        self._callbacks += functions
        self.demand("SetCertificateCompressionAlgorithm", self.fd, _Compression(1, b"zlib", *functions))

    def _be_server(self) -> None:
        library, options = self.library, self.options
        certificate = library.PK11_FindCertFromNickname(b"own", None)
        if certificate:
            key = library.PK11_FindKeyByAnyCert(certificate, None)
            extra = _ServerCertificate(0)
            if staple := options.get("staple"):
                response = bytes.fromhex(staple)
                item = _Item(0, response, len(response))
                extra.staples = ctypes.pointer(_ItemArray(ctypes.pointer(item), 1))
            size = ctypes.sizeof(extra)
            self.demand("SSL_ConfigServerCert", self.fd, certificate, key, ctypes.byref(extra), size)
        if options.get("want_certificate"):
            self.set("request_certificate", 1)
            self.set("require_certificate", 1)
        if self._replays.value:
            self.demand("SetAntiReplayContext", self.fd, self._replays)
        if options.get("cookie"):

            def decide(
                first: int, token: int, length: int, retry: Any, retry_length: Any, most: int, argument: int
            ) -> int:
                if not first:
                    say("cookie", right=ctypes.string_at(token, length) == _COOKIE)
                    return _RETRY_ACCEPT
                ctypes.memmove(retry, _COOKIE, len(_COOKIE))
                retry_length[0] = len(_COOKIE)
                return _RETRY_REQUEST

            self._callbacks.append(_RETRY(decide))
            self.demand("HelloRetryRequestCallback", self.fd, self._callbacks[-1], None)

    def _add_psk(self, psk: dict[str, str]) -> None:
        secret, identity = bytes.fromhex(psk["secret"]), psk["identity"].encode()
        key = self.library.PK11_ImportSymKey(
            self.library.PK11_GetInternalSlot(), _HKDF_KEY_GEN, _ORIGIN_UNWRAP, _DERIVE,
            _Item(0, secret, len(secret)), None,
        )  # fmt: skip
        hash_type = _HASHES[psk.get("hash", "sha256")]
        self.demand("AddExternalPsk", self.fd, key, identity, len(identity), hash_type)

    def _watch_alerts(self) -> None:
        for which, register in (("received", "SSL_AlertReceivedCallback"), ("sent", "SSL_AlertSentCallback")):

            def seen(fd: int, argument: int, alert: Any, which: str = which) -> None:
                self.alerts[which] = alert[0][1]

            self._callbacks.append(_ALERT(seen))
            self.demand(register, self.fd, self._callbacks[-1], None)

    # --- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Until the input ends."""
        pending = b""
        os.set_blocking(0, False)
        while True:
            if not self.done and self.waiting is None:
                self.advance()
            sources = [0] if self.done else [0, self.descriptor]
            readable, _, _ = select.select(sources, [], [], self._timeout())
            if self.waiting is not None and self.descriptor in readable:
                # NSS wants a socket with one peer; the datagram stays for it.
                _, address = self.waiting.recvfrom(1, socket.MSG_PEEK)
                self.waiting.connect(address)
                self._start()
            if 0 in readable:
                data = os.read(0, 1 << 20)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.obey(**json.loads(line))

    def _timeout(self) -> float | None:
        interval = c_uint32()
        if self.fd is None or self.done:
            return None
        if self.library.DTLS_GetHandshakeTimeout(self.fd, interval) != 0:
            return None
        milliseconds: int = self.library.PR_IntervalToMilliseconds(interval)
        return max(milliseconds, 1) / 1_000

    def advance(self) -> None:
        """Whatever the socket holds, and what follows from it."""
        if self.connected or self._handshake():
            self._read()

    def _handshake(self) -> bool:
        early = self.options.get("early") if not self.serves else None
        if self.library.SSL_ForceHandshake(self.fd) != 0:
            blocked = self.library.PR_GetError() == _WOULD_BLOCK
            if not blocked:
                self._failed()
            elif early is not None and self.resuming:
                data = bytes.fromhex(early)
                say("early data sent", n=self.library.PR_Write(self.fd, data, len(data)))
                self.resuming = False
            elif self.serves and self.options.get("early_data"):
                self._read()
            return False
        self.connected = True
        self._say_connected()
        return True

    resuming = False

    def _read(self) -> None:
        buffer = ctypes.create_string_buffer(_MESSAGE_BYTES)
        while not self.done:
            n = self.library.PR_Read(self.fd, buffer, _MESSAGE_BYTES)
            if n < 0:
                if self.library.PR_GetError() != _WOULD_BLOCK:
                    self._failed()
                return
            if n == 0:
                say("peer closed")
                self.done = True
                return
            data = buffer.raw[:n]
            self.received += n
            self.digest.update(data)
            say(
                "data", n=self.received, sha256=self.digest.hexdigest(), hex=data[:64].hex(),
                early=not self.connected,
            )  # fmt: skip

    def _failed(self) -> None:
        say(
            "failed", error=self._error(), alert_received=self.alerts["received"],
            alert_sent=self.alerts["sent"],
        )  # fmt: skip
        self.done = True

    def _say_connected(self) -> None:
        library, fd = self.library, self.fd
        info = _ChannelInfo()
        self.demand("SSL_GetChannelInfo", fd, info, ctypes.sizeof(info))
        state, protocol, n = c_int(), ctypes.create_string_buffer(256), c_uint()
        agreed = library.SSL_GetNextProto(fd, state, protocol, n, 256) == 0 and n.value
        profile = c_uint16()
        exported = ctypes.create_string_buffer(32)
        label, context = b"EXPORTER-sealwire-interop", b"context"
        self.demand("SSL_ExportKeyingMaterial", fd, label, len(label), 1, context, len(context), exported, 32)
        say(
            "connected",
            version=info.version,
            suite=info.suite,
            group=info.group,
            resumed=bool(info.resumed),
            early_data_accepted=bool(info.early_data_accepted),
            psk_type=info.psk_type,
            certificate=self._peer_certificate(),
            staple=self._peer_staple(),
            packed=self.packed,
            unpacked=self.unpacked,
            alpn=protocol.raw[: n.value].decode() if agreed else None,
            srtp=profile.value if library.SSL_GetSRTPCipher(fd, profile) == 0 else None,
            exporter=exported.raw.hex(),
        )

    def _peer_certificate(self) -> str | None:
        """SHA-256 of the peer's certificate."""
        certificate = self.library.SSL_PeerCertificate(self.fd)
        if not certificate:
            return None
        item = _Pointers.from_address(certificate + _DER_CERT_OFFSET)
        return hashlib.sha256(ctypes.string_at(item.data, item.length)).hexdigest()

    def _peer_staple(self) -> str | None:
        """SHA-256 of the OCSP response the peer stapled."""
        responses = self.library.SSL_PeerStapledOCSPResponses(self.fd)
        if not responses or not responses[0].length:
            return None
        item = responses[0].items[0]
        pointer = ctypes.cast(responses[0].items, POINTER(_Pointers))[0].data
        return hashlib.sha256(ctypes.string_at(pointer, item.length)).hexdigest()

    # --- commands -----------------------------------------------------------------------------

    def obey(self, do: str, **details: Any) -> None:
        getattr(self, f"do_{do}")(**details)

    def do_send(self, data_hex: str) -> None:
        data = bytes.fromhex(data_hex)
        if self.library.PR_Write(self.fd, data, len(data)) != len(data):
            self._failed()

    def do_update(self, request: bool = True) -> None:
        """KeyUpdate, by default with a request for ours."""
        if self.library.KeyUpdate(self.fd, int(request)) == 0:
            say("updating")
        else:
            self._failed()

    def do_close(self) -> None:
        say("closing", result=self.library.PR_Shutdown(self.fd, _SHUTDOWN_SEND))

    def do_again(self, resume: bool = False) -> None:
        """Another connection: a server waits for it, a client begins it (and resumes if it has a ticket)."""
        if self.fd is not None:
            self.library.PR_Close(self.fd)
        elif self.waiting is not None:
            self.waiting.close()
        self.resuming = resume
        self.begin()
        say("again")


def main(directory: str, options: str) -> None:
    library = Library(directory)
    suites = library.SSL_GetImplementedCiphers()[: library.SSL_GetNumImplementedCiphers()]
    say(
        "version", version=library.NSS_GetVersion().decode(),
        suites=[number for number in suites if number >> 8 == 0x13],
    )  # fmt: skip
    Peer(library, json.loads(options)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
