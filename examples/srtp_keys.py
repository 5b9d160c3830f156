"""One port for three protocols, as WebRTC has it: STUN, DTLS that agrees on SRTP keys, and media.

    python examples/srtp_keys.py --cert dev/server.pem --key dev/server.key

Each datagram's first byte says whose it is (RFC 7983): below 4 STUN, 20 to 63 DTLS, 128 to 191 media.
The two know each other by the fingerprint of a certificate, which WebRTC sends in SDP.  Media is sealed
with the agreed keys here by a stand-in; an SRTP library takes its place.
"""

import argparse
import select
import socket
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import sealwire

PROFILES = "SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80"


def media_packet(key, salt, number, payload):
    """A stand-in for SRTP: the first byte is that of RTP version 2."""
    nonce = bytes(s ^ n for s, n in zip(salt, number.to_bytes(len(salt), "big"), strict=True))
    header = b"\x80\x00" + number.to_bytes(2, "big")
    return header + AESGCM(key).encrypt(nonce, payload, header)


def media_payload(key, salt, packet):
    nonce = bytes(s ^ n for s, n in zip(salt, packet[2:4].rjust(len(salt), b"\0"), strict=True))
    return AESGCM(key).decrypt(nonce, packet[4:], packet[:4])


class Server:
    """An endpoint that shares its socket: what is not DTLS comes to `other`."""

    def __init__(self, context):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.endpoint = sealwire.dtls.Endpoint(context.config, on_other=self.other)

    def other(self, datagram, address):
        if datagram[0] < 4:
            print("server: STUN from the client")
            self.socket.sendto(b"\x01\x01" + bytes(datagram[2:]), address)
        elif 128 <= datagram[0] <= 191:
            [peer] = self.endpoint
            keys = peer.srtp_keys()
            print("server: media", media_payload(keys.client_key, keys.client_salt, bytes(datagram)))
            self.socket.sendto(media_packet(keys.server_key, keys.server_salt, 1, b"frame back"), address)

    def turn(self, readable, now):
        if readable:
            self.endpoint.receive([self.socket.recvfrom(65535)], now)
        self.endpoint.wake(now)
        for datagram, address in self.endpoint.transmit(now):
            self.socket.sendto(datagram, address)
        self.endpoint.events()


class Client:
    """One connection on a socket of its own, with the same sorting by the first byte."""

    def __init__(self, context, address):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(address)
        self.socket.send(b"\x00\x01" + bytes(18))
        self.context = context
        self.dtls = None
        self.done = False

    def turn(self, readable, now):
        datagram = self.socket.recv(65535) if readable else b""
        if datagram and datagram[0] < 4:
            print("client: STUN answered, so DTLS begins")
            self.dtls = sealwire.dtls.Connection.client(self.context.config(), now=now)
        elif datagram and 128 <= datagram[0] <= 191:
            keys = self.dtls.srtp_keys()
            print("client: media", media_payload(keys.server_key, keys.server_salt, datagram))
            self.done = True
        elif datagram and self.dtls is not None:
            self.dtls.receive(datagram, now)
        if self.dtls is None:
            return
        self.dtls.wake(now)
        for out in self.dtls.transmit(now):
            self.socket.send(out)
        for event in self.dtls.events():
            if isinstance(event, sealwire.dtls.Connected):
                print("client: agreed on", event.session.srtp_profile.name)
                keys = self.dtls.srtp_keys()
                self.socket.send(media_packet(keys.client_key, keys.client_salt, 1, b"frame"))


def main(args):
    served = sealwire.Context(sealwire.PROTOCOL_SERVER)
    served.load_cert_chain(args.cert, args.key)
    served.use_srtp(PROFILES)
    context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
    with open(args.cert, "rb") as file:
        leaf = x509.load_pem_x509_certificates(file.read())[0]
    context.check_hostname = False
    context.set_pinned_fingerprints(["sha256:" + leaf.fingerprint(hashes.SHA256()).hex()])
    context.use_srtp(PROFILES)

    server = Server(served)
    client = Client(context, server.socket.getsockname())
    end = time.monotonic() + 10
    while not client.done and time.monotonic() < end:
        readable, _, _ = select.select([server.socket, client.socket], [], [], 0.05)
        for side in (server, client):
            side.turn(side.socket in readable, time.monotonic())
    server.socket.close()
    client.socket.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--cert", "--key"):
        parser.add_argument(option, required=True)
    main(parser.parse_args())
