# SPDX-License-Identifier: BSD-2-Clause
"""A connection that repairs itself: port, lease, plan and weights as the driver wants them."""

import time
from collections.abc import Callable
from typing import Any

from xnorforge.sw.endpoint import Endpoint
from xnorforge.sw.errors import (
    BundleMismatchError,
    ForeignDeviceError,
    LinkLostError,
    PortError,
    SilentDeviceError,
    WeightsError,
)
from xnorforge.sw.manifest import Manifest
from xnorforge.sw.protocol import MAGIC, REGISTER_COUNT, VERSION, Identity, Register
from xnorforge.sw.transport import TransportLost

__all__ = ["Connection", "check_identity"]

_RETRY_S = 0.2  # between attempts to open a port that went away
_DIGEST_S = 1.0  # for the core to close a load after its last byte


class Connection:
    """Port and link to one board.

    Parameters
    ----------
    manifest : the bundle that the board must hold
    endpoint : link, and what opens its port
    timeout : seconds without progress before an operation fails
    may_load : weights that differ are replaced by `load`; else they are an error
    clock : seconds, as the board's side counts them

    Attributes
    ----------
    link: the endpoint's; images go in and records come out there.
    load, digest: the weights of images submitted from now on; `use` changes them.
    slots: models that the board holds at once, known once it was met.
    reconnects: times the port was opened again.
    """

    def __init__(
        self,
        manifest: Manifest,
        endpoint: Endpoint,
        *,
        timeout: float,
        may_load: bool,
        progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = endpoint.link
        self.slots = 1
        self._loads: dict[int, bytes] = {}
        self._resident: dict[int, int] = {}  # slots of the models that the board holds
        self.use(manifest.weights(), manifest.weights_digest)
        self.reconnects = 0
        self._manifest = manifest
        self._connect = endpoint.connect
        self._where = endpoint.where
        self._timeout = timeout
        self._may_load = may_load
        self._progress = progress
        self._clock = clock
        self._transport: Any = None
        self._since = self._clock()

    def close(self) -> None:
        """Release the port."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def start(self, *, load_always: bool = False) -> None:
        """Open the port; make sure of device, plan and weights; begin a lease."""
        try:
            self._transport = self._connect()
            self._meet()
            if load_always:
                self._load_weights(self.digest, 0)
            self._establish()
        except TransportLost as error:
            raise PortError(
                f"{self._where} went away ({error}): close other programs that use it, or plug it "
                "in again"
            ) from error

    def use(self, load: bytes, digest: int) -> None:
        """The weights of images submitted from now on; `prepare` or `replace_weights` follows."""
        self._loads = {k: v for k, v in self._loads.items() if k in self.link.models}
        self._loads[digest] = load
        self.load, self.digest, self.link.model = load, digest, digest

    def replace_weights(self, load: bytes, digest: int) -> None:
        """Use other weights, loaded where the board does not hold them, digest checked.

        Images without a result keep theirs, as long as the board has a slot for both. What the
        board holds already is taken from the next image on, in the same lease.
        """
        self.use(load, digest)
        if self.link.takes_images and digest in self._resident:
            self.link.slots[digest] = self._resident[digest]
            return
        try:
            self._establish(may_load=True)
        except TransportLost as error:
            raise PortError(
                f"{self._where} went away during the load ({error}): plug it in, and load again"
            ) from error

    def prepare(self) -> None:
        """Be in a lease for images, whatever the last call left behind."""
        self.touch()
        if self._transport is None:
            self._reconnect(TransportLost("closed"))
        elif not self.link.takes_images:
            try:
                self._establish()
            except TransportLost as error:
                self._reconnect(error)

    def touch(self) -> None:
        """Time without progress counts from here."""
        self._since = self._clock()
        self.link.touch(self._since)

    def step(self) -> None:
        """Move bytes once and repair what broke. Raises LinkLostError after too long."""
        try:
            if self._transport is None:
                raise TransportLost("closed")
            self._pump()
            if self.link.stranded:
                self._establish()
        except TransportLost as error:
            self._reconnect(error)
        self._check_progress(self._since)

    def read_identity(self) -> Identity:
        """All registers. Repairs the connection as `step` does."""
        while True:
            try:
                return self._read_identity()
            except TransportLost as error:
                self._reconnect(error)

    # --- parts ----------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._transport is None:
            raise TransportLost("closed")
        self.link.exchange(self._transport, self._clock)

    def _wait(self, done: Callable[[], bool]) -> None:
        since = self._clock()
        while not done():
            self._pump()
            self._check_progress(since)

    def _check_progress(self, since: float) -> None:
        quiet = self._clock() - max(since, self.link.progress_at)
        if quiet > self._timeout:
            what = "answers but takes and gives no data"
            if self.link.heard_at < self._clock() - self._timeout:
                what = "does not answer"
            raise LinkLostError(
                f"The board on {self._where} {what} for {self._timeout:g} s: reset it"
            )

    def _read_identity(self) -> Identity:
        self.link.request(0, REGISTER_COUNT, self._clock())
        self._wait(lambda: self.link.values is not None)
        assert self.link.values is not None  # for the type checker: just waited for
        return Identity(self.link.values)

    def _meet(self) -> None:
        """Ask who is there. What does not answer in frames is another device, or none."""
        link = self.link
        link.detach()
        before = link.counts.bytes_received
        try:
            identity = self._read_identity()
        except LinkLostError as error:
            if link.counts.bytes_received == before:
                raise SilentDeviceError(
                    f"Nothing answers on {self._where}: check that the board has power and its "
                    "bitstream, and that the port is the right one"
                ) from error
            raise ForeignDeviceError(
                f"What answers on {self._where} is not an xnorforge accelerator at this rate: "
                "check the port and the baud rate"
            ) from error
        check_identity(identity, self._manifest, self._where)
        self.slots = identity.slots
        link.configure(self._manifest.record_bytes, identity.buffer_bytes, identity.window_bytes)

    def _establish(self, *, may_load: bool = False) -> None:
        """Begin a lease and look in it, where no other host can interfere, at plan and weights.

        Only then do images go out. may_load: weights may be replaced, whatever is the rule.
        """
        link = self.link
        since = self._clock()
        while True:
            link.open(self._clock(), held=True)
            self._wait(lambda: link.opened or link.stranded)
            identity = self._read_identity()
            check_identity(identity, self._manifest, self._where)
            if not link.stranded:
                wanted = {*link.models, self.digest}
                missing = [digest for digest in wanted if identity.slot_of(digest) is None]
                if not missing:
                    held = {identity.digest(slot): slot for slot in range(identity.slots)}
                    self._resident = {k: slot for k, slot in held.items() if k is not None}
                    link.slots = {k: self._resident[k] for k in wanted}
                    link.release()
                    return
                if not (may_load or self._may_load):
                    raise self._mismatch(identity, missing[0])
                self._load_weights(missing[0], identity.slot_for_load(wanted))
            self._check_progress(since)

    def _mismatch(self, identity: Identity, digest: int) -> BundleMismatchError:
        found = ", ".join(
            "none" if held is None else f"{held:08x}"
            for held in map(identity.digest, range(identity.slots))
        )
        return BundleMismatchError(
            f"The board on {self._where} has weights {found}, the bundle has {digest:08x}: "
            "open it with load='auto'"
        )

    def _load_weights(self, digest: int, slot: int) -> None:
        link, load = self.link, self._loads[digest]
        size = len(load)
        link.open(self._clock(), load=load, slot=slot)
        since = self._clock()
        while not link.delivered:
            if link.stranded:
                link.open(self._clock(), load=load, slot=slot)
            self._pump()
            self._check_progress(since)
            if self._progress and link.opened:
                self._progress(size - link.unsent_bytes, size)
        end = self._clock() + _DIGEST_S
        while True:
            identity = self._read_identity()
            found = identity.digest(slot)
            if found == digest:
                return
            if self._clock() > end:
                held = "none" if found is None else f"{found:08x}"
                raise WeightsError(
                    f"The board on {self._where} has weights {held} after a load of {digest:08x}: "
                    "it holds another plan or is damaged, build and program the bundle"
                )

    def _reconnect(self, cause: TransportLost) -> None:
        """Open the port again until `timeout` has passed; images without a result stay queued."""
        end = self._clock() + self._timeout
        while True:
            self.close()
            self.reconnects += 1
            try:
                self._transport = self._connect()
                self._meet()
                self._establish()
                self.touch()
                return
            except (TransportLost, PortError, SilentDeviceError) as error:
                if self._clock() + _RETRY_S > end:
                    raise PortError(
                        f"{self._where} went away ({cause}) and did not come back within "
                        f"{self._timeout:g} s: plug it in again"
                    ) from error
            time.sleep(_RETRY_S)


def check_identity(identity: Identity, manifest: Manifest, where: str) -> None:
    """Raises ForeignDeviceError or BundleMismatchError where the device is not the bundle's."""
    if identity[Register.MAGIC] != MAGIC:
        raise ForeignDeviceError(
            f"The device on {where} is not an xnorforge accelerator: its register 0 is "
            f"{identity[Register.MAGIC]:08x}, not {MAGIC:08x}"
        )
    if identity[Register.VERSION] != VERSION:
        raise ForeignDeviceError(
            f"The board on {where} speaks protocol {identity[Register.VERSION]}, this driver "
            f"{VERSION}: compile, build and program the bundle again"
        )
    if identity[Register.PLAN_HASH] != manifest.plan_hash:
        raise BundleMismatchError(
            f"The board on {where} has plan {identity[Register.PLAN_HASH]:08x}, the bundle "
            f"{manifest.path} has {manifest.plan_hash:08x}: program the board with that bundle"
        )
    for what, found, wanted in (
        ("bytes an image", identity[Register.IMAGE_BYTES], manifest.image.image_bytes),
        ("classes", identity.classes, manifest.classes),
        ("bytes a score", identity.score_bytes, manifest.score_bytes),
    ):
        if found != wanted:
            raise BundleMismatchError(
                f"The board on {where} has {found} {what}, the bundle {manifest.path} has "
                f"{wanted}: program the board with that bundle"
            )
