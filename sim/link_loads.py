# SPDX-License-Identifier: BSD-2-Clause
"""Weight loads over the line: two models in turn, loads cut off, loads of damaged weights.

The driver loads over a serial port in simulated time into the bundle's own Verilog. Whatever
becomes of a load, the board either gives every score of one model or takes no image: a mixture of
two models would give scores of neither.
"""

from __future__ import annotations

import random

import numpy as np

from xnorforge.gen.bundle import Bundle
from xnorforge.sim.lockstep import LockstepBoard, SimulatedSerial
from xnorforge.sim.other_model import other_model
from xnorforge.sim.reference import Executor, Result
from xnorforge.sw.connection import Connection
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import AcceleratorError, WeightsError
from xnorforge.sw.link import HostLink
from xnorforge.sw.manifest import Manifest, check_load
from xnorforge.sw.transport import TransportLost

__all__ = ["Loader"]

DIVISOR = 4
BAUD = 250_000  # the time-outs then cost few cycles
_REFUSED_S = 0.3  # without a sign from the core: it takes no image


class Loader:
    """A board in lockstep to load models into; use it as a context manager.

    bundle: with the first model, "own". images: (N, *shape), which tell it from the second,
    "other": random numbers in all that a load can change. fast: as of LockstepBoard.

    Attributes
    ----------
    names: of the two models. Raises ValueError where no load can change the bundle's model.
    """

    names = ("own", "other")

    def __init__(self, bundle: Bundle, images: np.ndarray, *, fast: bool = False) -> None:
        self._bundle, self._images = bundle, images
        other = other_model(bundle.network, bundle.plan, images)
        if other is None:
            raise ValueError(f"{bundle.path} has nothing that a load could change")
        self._manifest = Manifest.read(bundle.path)
        self._loads = {"own": self._manifest.weights(), "other": other.load}
        own = Executor(bundle.network).run(images)
        self._expected: dict[str, Result] = {"own": own, "other": other.result}
        self._board = LockstepBoard(bundle.path, divisor=DIVISOR, fast=fast)
        self._held = ""  # in the board, as far as is known

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._board.stop()

    def exchange(self, name: str) -> int:
        """Load a model and classify all images: how many came out wrong."""
        # Opened for these weights, a board of unknown ones is loaded at once.
        with self._open(self._held or name) as accelerator:
            if self._held:
                accelerator.load_weights(self._loads[name])
            self._held = name
            return self._wrong(accelerator, name)

    def cut_off(self, name: str, seed: int) -> str:
        """Cut the line somewhere in a load of `name`: "own" or "other" where the board then gives
        all that model's scores, "refuses" where it takes no images, "mixture" for anything else.
        """
        if self._held in ("", name):
            self.exchange("other" if name == "own" else "own")
        port = _CutSerial(self._board)
        with self._open(self._held, port) as accelerator:
            port.cut_after(_place_of_cut(seed, len(self._loads[name])))
            try:
                accelerator.load_weights(self._loads[name])
            except AcceleratorError:
                return self._answer()
        raise ValueError("The line was cut behind the load's end")

    def damaged(self, seed: int) -> str:
        """Load weights that the board does not hold with one bit turned, past the driver's check:
        as `cut_off`, and "accepted" where the board took them."""
        if not self._held:
            self.exchange("own")
        name = next(name for name in self.names if name != self._held)
        load = bytearray(self._loads[name])
        place = random.Random(seed).randrange(8 * (len(load) - 4))
        load[place // 8] ^= 1 << place % 8
        connection = self._connection(self._held, _serial(self._board))
        connection.start()
        try:
            connection.replace_weights(bytes(load), check_load(self._loads[name]))
            return "accepted"
        except WeightsError:
            return self._answer()

    # --- parts ----------------------------------------------------------------------------------

    def _answer(self) -> str:
        """What a client finds that loads nothing."""
        for name in self.names:
            connection = self._connection(name, _serial(self._board))
            try:
                connection.start()
            except AcceleratorError:
                continue
            wrong = self._wrong(Accelerator(self._manifest, connection, None), name)
            self._held = "" if wrong else name
            return "mixture" if wrong else name
        self._held = ""
        return "mixture" if self._takes_images() else "refuses"

    def _takes_images(self) -> bool:
        """The core gives something for images sent without a look at what it holds."""
        port = _serial(self._board)
        connection = self._connection("own", port)
        link = connection.link
        assert isinstance(link, HostLink)  # for the type checker: it is a serial line's
        link.configure(self._manifest.record_bytes, 1024, 1024)
        link.open(port.clock())
        for image in self._manifest.image.pack(self._images):
            link.submit(image)
        end = port.clock() + _REFUSED_S
        while port.clock() < end:
            link.exchange(port, port.clock)
        return len(link.records) > 0

    def _open(self, name: str, port: SimulatedSerial | None = None) -> Accelerator:
        connection = self._connection(name, port or _serial(self._board), may_load=True)
        connection.start()
        return Accelerator(self._manifest, connection, None)

    def _connection(
        self, name: str, port: SimulatedSerial, *, may_load: bool = False
    ) -> Connection:
        connection = port.connection(
            self._manifest, where="a simulated line", timeout=5.0, may_load=may_load
        )
        connection.use(self._loads[name], check_load(self._loads[name]))
        return connection

    def _wrong(self, accelerator: Accelerator, name: str) -> int:
        scores, labels = accelerator.results(self._images)
        right = self._expected[name]
        same = (scores == right.scores).all(axis=1) & (labels == right.labels)
        return len(self._images) - int(same.sum())


def _place_of_cut(seed: int, load_bytes: int) -> int:
    """Anywhere; one in four in the first frame, before which the old model runs."""
    rng = random.Random(seed)
    return rng.randrange(1, rng.choice((256, load_bytes, load_bytes, load_bytes)))


def _serial(board: LockstepBoard) -> SimulatedSerial:
    return SimulatedSerial(board, DIVISOR * BAUD)


class _CutSerial(SimulatedSerial):
    """A port that goes away in the middle of a frame or between two."""

    def __init__(self, board: LockstepBoard) -> None:
        super().__init__(board, DIVISOR * BAUD, up=self._cut)
        self._left: int | None = None

    def cut_after(self, byte_count: int) -> None:
        """When so many more bytes have gone to the board."""
        self._left = byte_count

    def _cut(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        passed = data[: self._left]
        self._left -= len(passed)
        return passed

    def read(self, timeout: float) -> bytes:
        if self._left == 0:
            raise TransportLost("cut")
        return super().read(timeout)
