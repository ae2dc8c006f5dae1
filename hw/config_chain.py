# SPDX-License-Identifier: BSD-2-Clause
"""Head of the weight chain: checks a load and says whether the memories hold a whole model.

      i --> register --+--> load_o --> store --> store --> ... --> load_i (back again)
      boot ROM --------+--> CRC-32

A load is a payload of a known length and its CRC-32 (zlib's), little endian. The stores are
written while it arrives; the model counts as valid only when the CRC matched *and* the last store
has taken its share.

A circuit whose words can be replaced in its bitstream holds them in block RAMs only. What its other
stores need, and the digest, come down the chain from a boot ROM once after power-up.
"""

import zlib
from functools import reduce
from operator import xor

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.boot_rom import BootRom
from xnorforge.hw.store_loader import LOAD

__all__ = ["CONFIG_BYTE", "ConfigHead"]

CRC_BYTES = 4
_ONES = 0xFFFFFFFF
_POLYNOMIAL = 0xEDB88320  # CRC-32, reflected
CONFIG_BYTE = data.StructLayout({"data": 8, "first": 1})


class ConfigHead(wiring.Component):
    """Checks weight loads.

    `first` marks the first byte of a load, drops `model_valid` and starts over, also in the
    middle of another load. A load that is short, or whose CRC differs, leaves the model invalid;
    bytes after the end of a load are ignored until the next `first`.

    `model_valid` and `weights_digest` are not reset, like the memories they speak of. A reset
    during a load ends it: the rest is ignored and the model stays invalid. The payload may be
    empty: then only the CRC of nothing is awaited.

    Throughput: 1 byte per cycle.  Latency: 3 cycles from the last CRC byte to `model_valid`, plus
    one for each store in the chain.  Cost: see docs/blocks/stores.md.
    Back-pressure: none, always ready.

    Parameters
    ----------
    load_bytes : bytes of the payload, which must be the sum of the stores' `load_bytes`
    init_digest : CRC-32 of the payload that the memories power up with; None where some memory
        powers up with anything: the model is then invalid until it is loaded
    boot : BootRom that brings the digest, and a share to every store that boots; then
        `init_digest` is None. None in a chain that is never booted
    slots : models that the stores hold. A load is for one of them and leaves the other as it is;
        the power-up model is in slot 0

    Members
    -------
    i : In(stream.Signature(CONFIG_BYTE, always_ready=True))
    load_o : Out(LOAD)
        To the first store.
    load_i : In(LOAD)
        From the last store.
    slot : In(1)
        With `first`: where the load goes. Of two slots.
    load_slot : Out(1)
        To the stores. Of two slots.
    model_valid : Out(slots)
    weights_digest : Out(32), or Out(data.ArrayLayout(32, 2))
        CRC-32 of the payload in the memories; zero while the model is invalid.
    """

    def __init__(
        self,
        *,
        load_bytes: int,
        init_digest: int | None,
        boot: BootRom | None = None,
        slots: int = 1,
    ):
        self.check(load_bytes, init_digest)
        self.slots = slots
        self.load_bytes = load_bytes
        self.init_digest = init_digest
        self._boot = boot
        ports = {
            "i": In(stream.Signature(CONFIG_BYTE, always_ready=True)),
            "load_o": Out(LOAD),
            "load_i": In(LOAD),
            "model_valid": Out(slots),
            "weights_digest": Out(32 if slots == 1 else data.ArrayLayout(32, slots)),
        }
        if slots > 1:
            ports |= {"slot": In(1), "load_slot": Out(1)}
        super().__init__(ports)

    @staticmethod
    def check(load_bytes: int, init_digest: int | None) -> None:
        """Raise TypeError or ValueError unless the parameters make sense."""
        if not isinstance(load_bytes, int):
            raise TypeError(f"Load length must be an integer, not {load_bytes!r}")
        if load_bytes < 0:
            raise ValueError(f"Load length must be at least 0 bytes, not {load_bytes!r}")
        if init_digest is not None and not 0 <= init_digest < 1 << 32:
            raise ValueError(f"Initial digest must fit in 32 unsigned bits, not {init_digest!r}")

    @staticmethod
    def reference(payload: bytes) -> bytes:
        """The load for a payload: what must be sent to `i`, its first byte marked `first`."""
        return payload + zlib.crc32(payload).to_bytes(CRC_BYTES, "little")

    def elaborate(self, platform):
        # `left` counts the payload down and is negative after it, `closing` the CRC bytes up to 4,
        # where it rests between loads.
        # When the last CRC byte matches, it follows the payload into the chain: every store
        # passes it on, so its return proves that the last store is written. Starting over is
        # seen a cycle ahead of the byte that caused it.
        # The CRC's register stays as it is after a load and so is the digest; it powers up with
        # that of the memories' contents.
        m = Module()
        start = Signal()
        register = Signal(32, init=(self.init_digest or 0) ^ _ONES, reset_less=True)
        crc = ~register
        valid, byte = Signal(), Signal(8, reset_less=True)
        # Untouched by reset: with a reset value next to its load value its bits would have
        # different set and reset nets, which breaks the carry chain up on iCE40 (23 for 33 MHz).
        left = Signal(ceil_log2(self.load_bytes) + 1, reset_less=True)
        closing = Signal(range(CRC_BYTES + 1), init=CRC_BYTES)
        differs, matched, accepted = Signal(), Signal(), Signal()
        model_valid = Signal(self.slots, init=self.init_digest is not None, reset_less=True)

        payload = valid & ~left[-1] & ~closing[-1]
        check = valid & left[-1] & ~closing[-1]
        differs_now = differs | (byte != crc.word_select(closing[:-1], 8))
        m.d.comb += [
            start.eq(self.i.valid & self.i.payload.first),
            accepted.eq(check & (closing == CRC_BYTES - 1) & ~differs_now),
            self.model_valid.eq(model_valid),
        ]
        falls, rises = model_valid.eq(0), [model_valid.eq(1)]
        if self.slots == 1:
            # The CRC of the last load is the model's digest.
            m.d.comb += self.weights_digest.eq(Mux(model_valid, crc, 0))
        else:
            falls = model_valid.bit_select(self.slot, 1).eq(0)
            rises = [model_valid.bit_select(self.load_slot, 1).eq(1)]
            rises += [self._keep_digest(m, model_valid, crc)]
            with m.If(start):
                m.d.sync += self.load_slot.eq(self.slot)
        # The way to the stores starts at a register: `accepted` comes late in its cycle.
        m.d.sync += [
            valid.eq(self.i.valid),
            byte.eq(self.i.payload.data),
            self.load_o.start.eq(start),
            self.load_o.valid.eq(payload | accepted),
            self.load_o.data.eq(byte),
        ]
        if self._boot is not None:
            self._booted(m, start, register, matched)
        with m.If(start):
            m.d.sync += [
                left.eq(self.load_bytes - 1),
                closing.eq(0),
                differs.eq(0),
                matched.eq(0),
                falls,
                register.eq(_ONES),
            ]
        with m.Else():
            with m.If(payload):
                m.d.sync += [left.eq(left - 1), register.eq(_crc_step(register, byte))]
            with m.If(check):
                m.d.sync += [closing.eq(closing + 1), differs.eq(differs_now)]
            with m.If(accepted):
                m.d.sync += matched.eq(1)
            with m.If(matched & self.load_i.valid):
                m.d.sync += rises
        return m

    def _keep_digest(self, m, model_valid, crc):
        """Shows the slots' digests; gives the assignment that keeps that of the one just loaded."""
        kept = Signal(32 * self.slots, init=self.init_digest or 0, reset_less=True, name="digests")
        m.d.comb += [
            self.weights_digest[slot].eq(Mux(model_valid[slot], kept.word_select(slot, 32), 0))
            for slot in range(self.slots)
        ]
        return kept.word_select(self.load_slot, 32).eq(crc)

    def _booted(self, m, start, register, matched) -> None:
        """Boot bytes go down the chain; those of the digest also prove, as they come back, that
        the last store has its share."""
        m.submodules.boot = boot = self._boot
        m.d.comb += boot.stop.eq(start | self.model_valid.any())
        with m.If(boot.valid):
            m.d.sync += [self.load_o.valid.eq(1), self.load_o.data.eq(boot.data)]
            with m.If(boot.seal):
                m.d.sync += register.eq(Cat(register[8:], ~boot.data))
            with m.If(boot.last):
                m.d.sync += matched.eq(1)
        # What goes with `start` says whether it is a boot's.
        with m.If(start):
            m.d.sync += self.load_o.data.eq(0)
        with m.Elif(boot.start):
            m.d.sync += [self.load_o.start.eq(1), self.load_o.data.eq(1)]


def _crc_step(register: Value, byte: Value) -> Value:
    """The CRC's register after a byte: all eight bits at once."""
    # A byte's bits meet those of the register that leave; each pair flips a pattern.
    leaving = register[:8] ^ byte
    patterns = []
    for k in range(8):
        pattern = 1 << k
        for _ in range(8):
            pattern = (pattern >> 1) ^ (_POLYNOMIAL if pattern & 1 else 0)
        patterns.append(pattern)
    return Cat(
        reduce(
            xor,
            [leaving[k] for k in range(8) if patterns[k] >> bit & 1],
            register[bit + 8] if bit < 24 else C(0, 1),
        )
        for bit in range(32)
    )
