"""When keys are to be replaced: they are old, have sealed much, or met many forgeries.

RFC 9147 section 4.5.3 bounds what a key may do; on top of that keys that carried data are replaced
after a time (Limits.rekey_seconds), so that whoever learns them later can read no more than that.
Keys nobody used stay: an idle connection is left alone.
"""

from __future__ import annotations

from typing import Final

from sealwire.dtls.epochs import Opening, Sealing
from sealwire.dtls.layer import HandshakeLayer
from sealwire.dtls.outgoing import REKEY_PART, Outgoing
from sealwire.errors import Alert, ProtocolError
from sealwire.limits import Limits
from sealwire.telemetry import ConnectionCounters, KeyUsage

# The peer's keys are the peer's to replace; one that lets them become so much older than we allow
# ourselves is asked to.
_PATIENCE: Final = 1.5


class Rekeying:
    """Watches the keys of one connection, from the end of its handshake on."""

    __slots__ = (
        "_counters",
        "_layer",
        "_limits",
        "_opening",
        "_opening_epoch",
        "_opening_since",
        "_outgoing",
        "_sealing",
        "_sealing_epoch",
        "_sealing_since",
    )

    def __init__(
        self,
        layer: HandshakeLayer,
        sealing: Sealing,
        opening: Opening,
        outgoing: Outgoing,
        limits: Limits,
        counters: ConnectionCounters,
        now: float,
    ) -> None:
        self._layer = layer
        self._sealing = sealing
        self._opening = opening
        self._outgoing = outgoing
        self._limits = limits
        self._counters = counters
        self._sealing_epoch, self._opening_epoch = sealing.epoch, opening.epoch
        self._sealing_since = self._opening_since = now

    @property
    def since(self) -> tuple[float, float]:
        """Since when the newest keys are in use, each way."""
        return self._sealing_since, self._opening_since

    @since.setter
    def since(self, since: tuple[float, float]) -> None:
        self._sealing_epoch, self._opening_epoch = self._sealing.epoch, self._opening.epoch
        self._sealing_since, self._opening_since = since

    def looked(self, now: float) -> None:
        """Keys may have changed."""
        if self._sealing.epoch != self._sealing_epoch:
            self._sealing_epoch, self._sealing_since = self._sealing.epoch, now
        if self._opening.epoch != self._opening_epoch:
            self._opening_epoch, self._opening_since = self._opening.epoch, now

    @property
    def deadline(self) -> float | None:
        """When the sending keys are too old, None while nobody used them."""
        if not self._outgoing.used or self._layer.engine.updating_keys:
            return None
        return self._sealing_since + self._limits.rekey_seconds

    def wake(self, now: float) -> None:
        """Replace keys that are too old; KeysExhausted if none are left."""
        due = self.deadline
        if due is None or due > now:
            return
        patience = _PATIENCE * self._limits.rekey_seconds
        self._update(now, request_peer=now - self._opening_since >= patience)
        self._counters.rekeyed_by_age += 1

    def after_sealing(self, now: float) -> bool:
        """Replace keys that have sealed much: whether that has begun now.

        Raises:
            KeysExhausted: none are left.
        """
        if self._layer.engine.updating_keys or not self._outgoing.rekey_due:
            return False
        # [9147-4.5.3-2]
        self._update(now, request_peer=False)
        self._counters.rekeyed_by_use += 1
        return True

    def after_forgeries(self, now: float, *, connected: bool) -> None:
        """Records failed to authenticate: ask for new keys in time, and give up in time.

        Raises:
            ProtocolError: too many did.
        """
        part = self._opening.forged_part()
        if part >= 1:
            # RFC 9147 sections 4.5.2 and 4.5.3 [9147-4.5.2-3, 9147-4.5.3-4]
            reason = "too many records failed authentication"
            raise ProtocolError(Alert.BAD_RECORD_MAC, reason, "forgeries_per_key")
        if part < REKEY_PART or not connected or self._layer.engine.updating_keys:
            return
        if self._layer.may_update_keys:
            # [9147-4.5.3-5]
            self._update(now, request_peer=True)
            self._counters.rekeyed_by_forgeries += 1

    def _update(self, now: float, *, request_peer: bool) -> None:
        self._layer.update_keys(now, request_peer=request_peer)

    def usage(self) -> KeyUsage:
        """What the newest keys have done so far."""
        sealer = self._sealing.sealer(self._sealing.epoch)
        opener = self._opening.opener(self._opening.epoch & 3)
        assert opener is not None, "the newest receiving keys never expire"
        return KeyUsage(
            sending_epoch=self._sealing.epoch,
            sealed=sealer.sealed,
            seal_limit=sealer.seal_limit,
            receiving_epoch=self._opening.epoch,
            opened=opener.opened,
            forged=opener.forged,
            forgery_limit=opener.forgery_limit,
        )
