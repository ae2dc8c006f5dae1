# SPDX-License-Identifier: BSD-2-Clause
"""Clock generation: the PLL primitives and the reset that goes with them."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from xnorforge.hw.pll_config import PllConfig

__all__ = ["Pll", "ResetSequencer"]


class ResetSequencer(wiring.Component):
    """Holds reset until the PLL has been locked for a number of cycles without a break.

    Runs in `sync`, in flip-flops that `sync`'s own reset does not touch; they power up in reset.

    Throughput: `locked` is looked at every cycle.
    Latency: `reset` falls `cycles + 3` cycles after `locked` rises (two synchroniser stages) and
    rises again 3 cycles after `locked` falls.
    Cost: most of `Pll`'s: the synchroniser's two flip-flops, a counter to `cycles`, one more.

    Parameters
    ----------
    cycles : int
        Cycles to stay in reset after lock, at least 1.

    Members
    -------
    locked : In(1)
        The PLL's LOCK, asynchronous.
    reset : Out(1)
        Active-high reset from a flip-flop.
    """

    def __init__(self, *, cycles: int):
        if not isinstance(cycles, int):
            raise TypeError(f"Reset cycles must be an integer, not {cycles!r}")
        if cycles < 1:
            raise ValueError(f"Reset cycles must be at least 1, not {cycles!r}")
        self.cycles = cycles
        super().__init__({"locked": In(1), "reset": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        steady = Signal()
        m.submodules.synchroniser = FFSynchronizer(self.locked, steady)
        wait_count = Signal(range(self.cycles + 1), reset_less=True)
        released = Signal(reset_less=True)
        with m.If(~steady):
            m.d.sync += [wait_count.eq(0), released.eq(0)]
        with m.Elif(wait_count == self.cycles):
            m.d.sync += released.eq(1)
        with m.Else():
            m.d.sync += wait_count.eq(wait_count + 1)
        m.d.comb += self.reset.eq(~released)
        return m


class Pll(wiring.Component):
    """Drives the `sync` domain of the enclosing design from an oscillator.

    Instantiates the primitive of `config.kind` and a `ResetSequencer`; drives `sync`'s clock
    with the PLL's output and its reset with the sequencer's. The design defines the domain:
    `m.domains.sync = ClockDomain()`.

    Throughput, latency: none; a clock. It runs once the PLL has locked, `sync` leaves reset
    `config.reset_cycles + 3` cycles later.
    Cost: one PLL, about 20 LUT4 and 20 FF.

    Parameters
    ----------
    config : PllConfig

    Members
    -------
    clk_in : In(1)
        The oscillator; for "SB_PLL40_PAD" it must come straight from a port of the top.
    """

    def __init__(self, *, config: PllConfig):
        if not isinstance(config, PllConfig):
            raise TypeError(f"PLL configuration must be a PllConfig, not {config!r}")
        self.config = config
        super().__init__({"clk_in": In(1)})

    def elaborate(self, platform):
        m = Module()
        clk = Signal()
        locked = Signal()
        primitive = {"EHXPLLL": _ecp5_instance, "rPLL": _gowin_instance}
        if self.config.kind == "none":
            m.d.comb += [clk.eq(self.clk_in), locked.eq(1)]
        else:
            instance = primitive.get(self.config.kind, _ice40_instance)
            m.submodules.pll = instance(self.config, self.clk_in, clk, locked)
        m.submodules.sequencer = sequencer = ResetSequencer(cycles=self.config.reset_cycles)
        m.d.comb += [
            sequencer.locked.eq(locked),
            ClockSignal().eq(clk),
            ResetSignal().eq(sequencer.reset),
        ]
        return m


def _ice40_instance(config: PllConfig, clk_in: Value, clk: Signal, locked: Signal) -> Instance:
    source = "PACKAGEPIN" if config.kind == "SB_PLL40_PAD" else "REFERENCECLK"
    return Instance(
        config.kind,
        p_FEEDBACK_PATH="SIMPLE",
        **{f"p_{name}": value for name, value in config.instance_parameters().items()},
        **{f"i_{source}": clk_in},
        i_RESETB=Const(1),
        i_BYPASS=Const(0),
        o_PLLOUTGLOBAL=clk,
        o_LOCK=locked,
    )


def _ecp5_instance(config: PllConfig, clk_in: Value, clk: Signal, locked: Signal) -> Instance:
    # Loop filter settings as Project Trellis' ecppll writes them.
    return Instance(
        config.kind,
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        p_PLLRST_ENA="DISABLED",
        p_INTFB_WAKE="DISABLED",
        p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA",
        p_CLKOP_ENABLE="ENABLED",
        p_FEEDBK_PATH="CLKOP",
        **{f"p_{name}": value for name, value in config.instance_parameters().items()},
        i_CLKI=clk_in,
        i_CLKFB=clk,
        i_RST=Const(0),
        i_STDBY=Const(0),
        i_PHASESEL0=Const(0),
        i_PHASESEL1=Const(0),
        i_PHASEDIR=Const(1),
        i_PHASESTEP=Const(1),
        i_PHASELOADREG=Const(1),
        i_PLLWAKESYNC=Const(0),
        i_ENCLKOP=Const(0),
        o_CLKOP=clk,
        o_LOCK=locked,
    )


def _gowin_instance(config: PllConfig, clk_in: Value, clk: Signal, locked: Signal) -> Instance:
    return Instance(
        config.kind,
        p_CLKFB_SEL="internal",
        p_DYN_IDIV_SEL="false",
        p_DYN_FBDIV_SEL="false",
        p_DYN_ODIV_SEL="false",
        **{f"p_{name}": value for name, value in config.instance_parameters().items()},
        i_CLKIN=clk_in,
        i_CLKFB=Const(0),
        i_RESET=Const(0),
        i_RESET_P=Const(0),
        i_FBDSEL=Const(0, 6),
        i_IDSEL=Const(0, 6),
        i_ODSEL=Const(0, 6),
        i_PSDA=Const(0, 4),
        i_DUTYDA=Const(0, 4),
        i_FDLY=Const(0, 4),
        o_CLKOUT=clk,
        o_LOCK=locked,
    )
