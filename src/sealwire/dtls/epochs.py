"""The keys of one connection by epoch: which exist, and how long old ones stay.

A record header shows two bits of its epoch, so at most four receiving epochs live at once and never
two with equal low bits (RFC 9147 section 4.2.2; docs/decisions lists the choices).  Old keys stay
for what the network reorders, and epoch 2 for the two MSL in which a repeated final flight must
still be answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sealwire import ownership
from sealwire.crypto.hkdf import DTLS13_PREFIX, Secret, traffic_keys
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.dtls.header import MAX_SEQUENCE, encode_plaintext
from sealwire.errors import Alert, ProtocolError
from sealwire.record.padding import MAX_INNER_BYTES, NO_PADDING, Padding
from sealwire.record.protect import Opener, Sealer
from sealwire.tls13.contract import EPOCH_APPLICATION, EPOCH_EARLY, EPOCH_HANDSHAKE, Direction, InstallKeys
from sealwire.wire import Buffer, Reader, Writer, decode_error

# RFC 9147 section 5.8.1 [9147-5.8.1-4]: twice the maximum segment lifetime, which RFC 9293 says
# is two minutes.
LINGER_SECONDS: Final = 240.0
# How long after the first record of a new application epoch the one before it still opens: reordering
# takes milliseconds, a retransmitted KeyUpdate whose ACK was lost some seconds [9147-4.2.1-2].
_GRACE_SECONDS: Final = 20.0
# A million records since the last checkpoint.
_SEEK_STEPS: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class KeptKeys:
    """The keys of one epoch and direction, between two processes.

    Attributes:
        sequence: the next record number to send, or the highest that opened, -1 for none.
        used: records sealed, or failed attempts to open, which the AEAD's limit counts.
        seconds: how long they stay, None for as long as they are the newest.
    """

    epoch: int
    spec: SuiteSpec
    secret: Secret
    sequence: int
    used: int
    seconds: float | None = None

    def encode(self, writer: Writer) -> None:
        writer.u16(self.epoch)
        writer.u16(self.spec.suite)
        writer.hidden8(self.secret)
        writer.u64(self.sequence + 1)
        writer.u64(self.used)
        writer.u32(0 if self.seconds is None else max(int(self.seconds * 1000), 1))

    @classmethod
    def decode(cls, reader: Reader) -> KeptKeys:
        epoch, suite = reader.u16(), CipherSuite(reader.u16())
        secret, sequence, used, milliseconds = (
            Secret.taking(reader.vector8(low=1)),
            reader.u64(),
            reader.u64(),
            reader.u32(),
        )
        if suite not in SUITES or sequence > MAX_SEQUENCE + 1:
            raise decode_error("kept keys")
        return cls(
            epoch, SUITES[suite], secret, sequence - 1, used, milliseconds / 1000 if milliseconds else None
        )

    def install(self, direction: Direction) -> InstallKeys:
        return InstallKeys(direction, self.epoch, self.spec, self.secret)


@dataclass(frozen=True, slots=True)
class ReceivingKeys:
    """Keys of one epoch: the opener, what it was made of, and when they go, None for the newest."""

    opener: Opener
    secret: Secret
    until: float | None


_NO_SECRET: Final = Secret()


class Sealing:
    """Sending keys.  Epoch 0 has none, only numbers."""

    __slots__ = (
        "_provider",
        "_records_per_key",
        "_sealers",
        "epoch",
        "inner_limit",
        "padding",
        "plain_sequence",
        "reserved",
    )

    def __init__(
        self,
        provider: CryptoProvider,
        plain_sequence: int,
        records_per_key: int = MAX_SEQUENCE,
        padding: Padding = NO_PADDING,
    ) -> None:
        self._provider = provider
        self._records_per_key = records_per_key
        # One or two for most of a connection's life, for which a dict is large.
        self._sealers: tuple[Sealer, ...] = ()
        #: With checkpoints: the epoch and the number from which on another process may go on.
        self.reserved: tuple[int, int] | None = None
        #: How protected records are padded.
        self.padding = padding
        #: Content, type and padding of a protected record at most (RFC 8449).
        self.inner_limit = MAX_INNER_BYTES
        #: Highest epoch with keys.
        self.epoch = 0
        #: Record number of the next plaintext record.
        self.plain_sequence = plain_sequence

    def install(self, keys: InstallKeys, cid: bytes, *, sequence: int = 0, used: int = 0) -> None:
        """Make `keys` the ones for what is sent from now on.

        Keys of another process go on at `sequence` and have sealed `used` records.
        """
        if keys.epoch > 0xFFFF:
            # RFC 9147 sections 4.2.1, 6.1 and 8 [9147-4.2.1-7, 9147-6.1-3, 9147-8-5]; message_seq runs out at
            # the same time (errata 8050).
            raise ProtocolError(Alert.INTERNAL_ERROR, "the last epoch is used up")
        derived = traffic_keys(self._provider, keys.spec, keys.secret, DTLS13_PREFIX)
        # RFC 9147 section 4.5.3 [9147-4.5.3-1]: the AEAD's limit, or a lower one of the owner's.
        spec = keys.spec
        limit = max(min(self._records_per_key, spec.seal_limit) - used, 0)
        if limit < spec.seal_limit:
            spec = replace(spec, seal_limit=limit)
        sealer = Sealer(self._provider, spec, derived, keys.epoch, cid, sequence=sequence)
        ownership.own(ownership.Kind.KEYS, sealer)
        self._sealers = (sealer, *(one for one in self._sealers if one.epoch != keys.epoch))
        if keys.epoch != EPOCH_EARLY:
            # Early data is beside everything else: errata 8107 [9147-7-9], no ACK or alert in its epoch.
            self.epoch = keys.epoch

    def kept(self, spec: SuiteSpec, secret: Secret, skipped: int = 0) -> KeptKeys:
        """The newest keys, made of `secret`, for another process, which skips so many numbers."""
        # A number is used at most once, so there were never more records than numbers.
        sequence = self.sequence + skipped
        return KeptKeys(self.epoch, spec, secret, sequence, sequence)

    def rest(self) -> tuple[int, int, int] | None:
        """What :meth:`rise` wants of the newest keys; None if there are others or no numbers left."""
        if len(self._sealers) != 1:
            return None
        (sealer,) = self._sealers
        if sealer.epoch != self.epoch or sealer.sequence > MAX_SEQUENCE:
            return None
        return sealer.sequence, sealer.sealed, sealer.seal_limit

    def rise(self, keys: InstallKeys, cid: bytes, sequence: int, sealed: int, limit: int) -> None:
        """Go on with `keys`, which have sealed so many records, at that number and up to that limit."""
        self.install(
            keys,
            cid,
            sequence=sequence,
            used=min(self._records_per_key, keys.spec.seal_limit) - limit,
        )
        self.sealer(keys.epoch).sealed = sealed

    @property
    def sequence(self) -> int:
        """The next number under the newest keys."""
        return self.sealer(self.epoch).sequence

    def reserve(self, until: int) -> None:
        """From now on use no number of the newest keys from `until` on, and no other keys."""
        self.reserved = self.epoch, until

    @property
    def reserve_left(self) -> int:
        """Numbers of the newest keys that may be used."""
        if self.reserved is None:
            return MAX_SEQUENCE
        epoch, until = self.reserved
        return max(until - self.sequence, 0) if epoch == self.epoch else 0

    def __contains__(self, epoch: int) -> bool:
        return any(one.epoch == epoch for one in self._sealers)

    def use_cid(self, cid: bytes) -> None:
        """Put `cid` into every record from now on, of old epochs too [9147-4-7]."""
        for sealer in self._sealers:
            sealer.cid = cid

    def sealer(self, epoch: int) -> Sealer:
        """The sealer of an epoch that has keys; KeyError for another."""
        for sealer in self._sealers:
            if sealer.epoch == epoch:
                return sealer
        raise KeyError(epoch)

    def overhead(self, epoch: int) -> int:
        """Bytes a record of `epoch` adds to its content."""
        return self.sealer(epoch).overhead if epoch else 13

    def content_room(self, epoch: int, room: int) -> int:
        """Bytes of content in a record of `epoch` for which a datagram has `room` bytes."""
        content = room - self.overhead(epoch)
        return min(content, self.inner_limit - 1) if epoch else content

    def record(
        self, epoch: int, content_type: int, content: bytes | bytearray, room: int | None = None
    ) -> tuple[int, bytes]:
        """Sequence number and bytes of a record of `epoch`, padded as far as `room` bytes allow."""
        if epoch:
            sealer = self.sealer(epoch)
            if sealer.sealed >= sealer.seal_limit:
                # [9147-4.5.3-1]: never beyond, whatever became of the KeyUpdate.
                raise ProtocolError(Alert.INTERNAL_ERROR, "the sending keys are used up")
            if self.reserved is not None and (epoch != self.reserved[0] or not self.reserve_left):
                # Whoever goes on from the last checkpoint would use this number again.
                raise ProtocolError(Alert.INTERNAL_ERROR, "no checkpoint covers another record")
            padding = 0
            if self.padding and room is not None:
                longest = self.content_room(epoch, room) + 1
                padding = self.padding.of(content_type, len(content), longest)
            return sealer.sequence, sealer.seal(content_type, content, padding)
        number = self.plain_sequence
        if number > MAX_SEQUENCE:
            # RFC 9147 section 4 [9147-4-1]
            raise ProtocolError(Alert.INTERNAL_ERROR, "plaintext record numbers are used up")
        self.plain_sequence = number + 1
        return number, encode_plaintext(content_type, number, content)

    def forget_before(self, epoch: int, needed: set[int]) -> None:
        """Drop keys of epochs below `epoch` that no outstanding message needs [9147-4.2.1-5]."""
        self._sealers = tuple(one for one in self._sealers if one.epoch >= epoch or one.epoch in needed)

    def forget(self, epoch: int) -> None:
        """Drop the keys of one epoch, if there are any."""
        self._sealers = tuple(one for one in self._sealers if one.epoch != epoch)

    def clear(self) -> None:
        self._sealers = ()


class Opening:
    """Receiving keys, found by the low two bits of their epoch."""

    __slots__ = (
        "_expiries",
        "_forgeries_per_key",
        "_inner_limit",
        "_openers",
        "_provider",
        "_secrets",
        "_spec",
        "_window",
        "cids",
        "epoch",
    )

    def __init__(self, provider: CryptoProvider, window: int, forgeries_per_key: int = MAX_SEQUENCE) -> None:
        self._provider = provider
        self._forgeries_per_key = forgeries_per_key
        self._window = window
        self._inner_limit = MAX_INNER_BYTES
        #: Ids that records to us may carry, all of one length; empty without connection ids.
        self.cids: tuple[bytes, ...] = ()
        # At most four, and one or two for most of a connection's life; no two with equal low bits.
        self._openers: tuple[Opener, ...] = ()
        # When the keys of an epoch go, as (epoch, time).
        self._expiries: tuple[tuple[int, float], ...] = ()
        # What the openers are made of, in the same order: a process that takes the association over must
        # still open what a peer repeats under old keys, its last flight or a KeyUpdate.
        self._secrets: tuple[Secret, ...] = ()
        # The suite of all of them.
        self._spec: SuiteSpec | None = None
        #: Highest epoch with keys.
        self.epoch = 0

    @property
    def one_cid(self) -> bool:
        """Whether all records carry the same id, or none."""
        return len(self.cids) <= 1

    @property
    def cid_bytes(self) -> int:
        """Length of the id in records to us, 0 without."""
        return len(self.cids[0]) if self.cids else 0

    def install(self, keys: InstallKeys, cid: bytes = b"", *, highest: int = -1, used: int = 0) -> None:
        """Accept records under `keys` as well, with one of `cids` in them.

        Keys of another process have opened numbers up to `highest`, and failed to open `used` times.
        """
        # RFC 9147 section 8 [9147-8-6]: no limit on a peer's epochs here.
        if cid and not self.cids:
            self.cids = (cid,)
        # Whoever sends early data cannot know our id yet.
        own = self.cids[-1] if self.cids and keys.epoch != EPOCH_EARLY else b""
        derived = traffic_keys(self._provider, keys.spec, keys.secret, DTLS13_PREFIX)
        old = self.opener(keys.epoch & 3)
        if old is not None:
            self.forget(old.epoch)
        spec = self._spec = keys.spec
        limit = max(min(self._forgeries_per_key, spec.forgery_limit) - used, 1)
        if limit < spec.forgery_limit:
            spec = replace(spec, forgery_limit=limit)
        opener = Opener(self._provider, spec, derived, keys.epoch, own, self._window, highest=highest)
        ownership.own(ownership.Kind.KEYS, opener)
        opener.inner_limit = self._inner_limit
        self._openers = (opener, *self._openers)
        self._secrets = (keys.secret, *self._secrets)
        self.epoch = keys.epoch

    def rest(self) -> tuple[ReceivingKeys, ...]:
        """The openers, with their windows and counts; the newest first, without its secret."""
        ends = dict(self._expiries)
        secrets = (_NO_SECRET, *self._secrets[1:])
        return tuple(
            ReceivingKeys(opener, secret, ends.get(opener.epoch))
            for opener, secret in zip(self._openers, secrets, strict=True)
        )

    def rise(self, keys: Sequence[ReceivingKeys], spec: SuiteSpec) -> None:
        """Go on with keys, the newest first."""
        self._openers = tuple(one.opener for one in keys)
        self._secrets = tuple(one.secret for one in keys)
        self._expiries = tuple((one.opener.epoch, one.until) for one in keys if one.until is not None)
        self._spec = spec
        self.epoch = self._openers[0].epoch
        for opener in self._openers:
            ownership.own(ownership.Kind.KEYS, opener)

    def kept(self, now: float) -> tuple[KeptKeys, ...]:
        """The keys that live, for another process; the newest come first."""
        pairs = zip(self._openers, self._secrets, strict=True)
        return tuple(
            self._kept(opener, secret, now)
            for opener, secret in sorted(pairs, key=lambda pair: pair[0].epoch, reverse=True)
        )

    def _kept(self, opener: Opener, secret: Secret, now: float) -> KeptKeys:
        spec = self._spec
        assert spec is not None
        used = min(self._forgeries_per_key, spec.forgery_limit) - opener.forgery_limit + opener.forged
        end = next((at for epoch, at in self._expiries if epoch == opener.epoch), None)
        left = None if end is None else max(end - now, 0.0)
        return KeptKeys(opener.epoch, spec, secret, opener.highest, used, left)

    def seek(self, keys: KeptKeys, datagram: Buffer) -> bool:
        """Look further ahead than 16 bits of a number tell, where nobody knows how far the peer is.

        Whether the first record of `datagram` opened under `keys`, which go on from there then.
        """
        derived = traffic_keys(self._provider, keys.spec, keys.secret, DTLS13_PREFIX)
        cid = bytes(datagram[1 : 1 + self.cid_bytes])
        for step in range(_SEEK_STEPS):
            highest = min(keys.sequence + (step << 16), MAX_SEQUENCE)
            opener = Opener(
                self._provider, keys.spec, derived, keys.epoch, cid, self._window, highest=highest
            )
            opener.open_run((datagram,), 0, 0)
            if opener.opened:
                self.install(keys.install(Direction.RECEIVE), highest=opener.highest - 1, used=keys.used)
                return True
        return False

    def limit_records(self, inner_bytes: int) -> None:
        """Take no record with more content, type and padding from here on (RFC 8449)."""
        self._inner_limit = inner_bytes
        for opener in self._openers:
            opener.inner_limit = inner_bytes

    @property
    def overlong(self) -> int:
        """Authentic records that were longer, under the keys that live."""
        total = 0
        for opener in self._openers:
            total += opener.overlong
        return total

    def opener(self, low_bits: int) -> Opener | None:
        """The opener for records that show these epoch bits: of the newest such epoch [9147-4.2.2-3]."""
        for opener in self._openers:
            if opener.epoch & 3 == low_bits:
                return opener
        return None

    def opener_for(self, datagram: Buffer, offset: int) -> Opener | None:
        """The opener for the record at `offset`, told which of our ids to expect in it."""
        opener = self.opener(datagram[offset] & 3)
        if opener is not None and len(self.cids) > 1:
            cid = bytes(datagram[offset + 1 : offset + 1 + len(self.cids[0])])
            if cid != opener.cid and cid in self.cids:
                opener.cid = cid
        return opener

    def expire_at(self, epoch: int, at: float) -> None:
        """Drop the keys of `epoch` then."""
        self._expiries = (*(one for one in self._expiries if one[0] != epoch), (epoch, at))

    def forget(self, epoch: int) -> None:
        """Drop the keys of `epoch` now, if there are any."""
        self._expiries = tuple(one for one in self._expiries if one[0] != epoch)
        for at, opener in enumerate(self._openers):
            if opener.epoch == epoch:
                self._openers = self._openers[:at] + self._openers[at + 1 :]
                self._secrets = self._secrets[:at] + self._secrets[at + 1 :]
                break

    def linger(self, now: float) -> None:
        """The handshake is over: keep its epoch for two MSL [9147-5.8.1-4]."""
        self.expire_at(EPOCH_HANDSHAKE, now + LINGER_SECONDS)

    def opened(self, epoch: int, now: float) -> None:
        """A record of `epoch` authenticated: the one before opens a little longer [9147-8-3, 9147-8-4]."""
        before = epoch - 1
        if before >= EPOCH_APPLICATION and all(one[0] != before for one in self._expiries):
            old = self.opener(before & 3)
            if old is not None and old.epoch == before:
                self.expire_at(before, now + _GRACE_SECONDS)

    @property
    def deadline(self) -> float | None:
        """When the next keys go."""
        return min((at for _, at in self._expiries), default=None)

    def expire(self, now: float) -> None:
        """Drop keys whose time is over, and with them what still comes of old epochs [9147-4.2.1-1]."""
        for epoch, at in self._expiries:
            if at <= now:
                self.forget(epoch)

    @property
    def forged(self) -> int:
        """Failed authentications under the keys that live."""
        total = 0
        for opener in self._openers:
            total += opener.forged
        return total

    def forged_part(self) -> float:
        """The part of the forgery limit that is used up, of the keys that suffered most."""
        return max((opener.forged / opener.forgery_limit for opener in self._openers), default=0.0)

    def clear(self) -> None:
        self._openers, self._expiries, self._secrets = (), (), ()
