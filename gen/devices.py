# SPDX-License-Identifier: BSD-2-Clause
"""Devices as data: what an FPGA holds and how its tools are called.

A new device of a known family is one entry in the tables here. A new family also needs a `Family`
and, in `gen.constraints`, its constraint files. Counts are those that place and route can use: an
HX4K and an LFE5U-12F are larger dies under other names, and are used whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnorforge.gen.errors import PlanError

__all__ = ["DEVICES", "FAMILIES", "XILINX", "Device", "Family", "get_device"]


@dataclass(frozen=True)
class Family:
    """What all devices of a family share.

    block_ram_shapes: (width, depth) of one block as a simple dual-port memory, widest first.
    lut_ram: look-up tables can be memory (distributed RAM).
    synthesis: yosys command that maps to the family, without `-top` and `-json`.
    place_and_route, packer, patcher: names in `gen.tools`; no patcher where nothing can replace
        the words of block RAMs in a routed result. plls: kinds of `hw.pll` that it has.
    constraints_suffixes: of the constraint files that nextpnr reads, pins first.
    routed_suffix, routed_option: suffix of nextpnr's routed result, and the option that names it.
    cell_keys: what nextpnr's report calls logic cells, memories and DSPs; several are added up.
        On iCE40 a logic cell is a LUT4 with its carry and flip-flop; on ECP5 and
        Gowin a LUT4, or the place of one that a carry cell or LUT RAM takes.
    flip_flop_prefix: how the names of flip-flop cells begin in yosys's netlist.
    """

    name: str
    block_ram_shapes: tuple[tuple[int, int], ...]
    lut_ram: bool
    synthesis: tuple[str, ...]
    place_and_route: str
    packer: str
    plls: tuple[str, ...]
    bitstream_suffix: str
    constraints_suffixes: tuple[str, ...]
    routed_suffix: str
    routed_option: str
    cell_keys: dict[str, tuple[str, ...]]
    flip_flop_prefix: str
    patcher: str = ""

    @property
    def block_ram_bits(self) -> int:
        """Bits of one block."""
        width, depth = self.block_ram_shapes[0]
        return width * depth


@dataclass(frozen=True)
class Device:
    """One FPGA.

    luts: LUT4s, LUT6s of Xilinx. flipflops. block_rams: blocks of `family.block_ram_bits`.
    lut_rams: LUT RAM primitives of 16 x 4 bits. spram_blocks: single-port blocks of 16 bits x
    16,384 that cannot be initialised (UP5K). dsps: multiplier blocks.
    place_and_route_args: nextpnr arguments that name the device. synthesis_args: what the
    device adds to its family's synthesis command. packages, speeds: those there are; the first
    is used when no board names one (no speeds where the family has no grades). clock_hz: core
    clock when nothing else is asked.
    part: how a Gowin part number begins, before package and speed. chip: what nextpnr and
    gowin_pack call the chip in it. pll_part: what its PLL calls it, see `hw.pll`.
    """

    name: str
    title: str
    family: Family
    luts: int
    flipflops: int
    block_rams: int
    lut_rams: int
    spram_blocks: int
    dsps: int
    place_and_route_args: tuple[str, ...]
    synthesis_args: tuple[str, ...]
    packages: tuple[str, ...]
    speeds: tuple[str, ...]
    clock_hz: int
    part: str = ""
    chip: str = ""
    pll_part: str = ""


_ICE40 = Family(
    name="ice40",
    block_ram_shapes=((16, 256), (8, 512), (4, 1024), (2, 2048)),
    lut_ram=False,
    synthesis=("synth_ice40", "-abc9"),
    place_and_route="nextpnr-ice40",
    packer="icepack",
    plls=("SB_PLL40_CORE", "SB_PLL40_PAD", "none"),
    bitstream_suffix=".bin",
    constraints_suffixes=(".pcf",),
    routed_suffix=".asc",
    routed_option="--asc",
    cell_keys={
        "logic_cells": ("ICESTORM_LC",),
        "block_rams": ("ICESTORM_RAM",),
        "sprams": ("ICESTORM_SPRAM",),
        "dsps": ("ICESTORM_DSP",),
    },
    flip_flop_prefix="SB_DFF",
    patcher="icebram",
)
_ECP5 = Family(
    name="ecp5",
    block_ram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    lut_ram=True,
    # Wide LUTs double the cost of popcounts: 4.3 instead of 2.0 LUT4 a bit.
    synthesis=("synth_ecp5", "-nowidelut", "-abc9"),
    place_and_route="nextpnr-ecp5",
    packer="ecppack",
    plls=("EHXPLLL", "none"),
    bitstream_suffix=".bit",
    constraints_suffixes=(".lpf",),
    routed_suffix=".config",
    routed_option="--textcfg",
    cell_keys={
        "logic_cells": ("TRELLIS_COMB",),
        "block_rams": ("DP16KD",),
        "dsps": ("MULT18X18D",),
    },
    flip_flop_prefix="TRELLIS_FF",
    patcher="ecpbram",
)
_GOWIN = Family(
    name="gowin",
    block_ram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    lut_ram=True,
    # -setundef: gowin_pack takes no undefined parameter.
    synthesis=("synth_gowin", "-nowidelut", "-setundef"),
    place_and_route="nextpnr-himbaechel-gowin",
    packer="gowin_pack",
    plls=("rPLL", "none"),
    bitstream_suffix=".fs",
    constraints_suffixes=(".cst", ".sdc"),
    routed_suffix=".json",
    routed_option="--write",
    cell_keys={
        # In the place of a LUT4 each: a carry cell, and of a LUT RAM four that the report leaves
        # out, beside four LUT4s that it has.
        "logic_cells": ("LUT4", "ALU", *("RAM16SDP4",) * 4),
        "block_rams": ("BSRAM",),
        "dsps": ("MULT18X18",),
    },
    flip_flop_prefix="DFF",
)

FAMILIES: dict[str, Family] = {family.name: family for family in (_ICE40, _ECP5, _GOWIN)}
"""Families whose bitstreams are made here."""

XILINX = Family(
    name="xilinx",
    # Of half a RAMB36. Cells are counted as on ECP5: a LUT6 holds no less than a LUT4.
    block_ram_shapes=_ECP5.block_ram_shapes,
    lut_ram=True,
    synthesis=(),
    place_and_route="",
    packer="",
    plls=(),
    bitstream_suffix="",
    constraints_suffixes=(),
    routed_suffix="",
    routed_option="",
    cell_keys={},
    flip_flop_prefix="",
)
"""7-series and UltraScale+: for Verilog that goes into Vivado, which no tool here replaces."""


def _ice40(
    name: str,
    title: str,
    packages: str,
    *,
    luts: int = 7680,
    block_rams: int = 32,
    spram_blocks: int = 0,
    dsps: int = 0,
    synthesis: str,
    clock_mhz: int,
) -> Device:
    return Device(
        name=f"ice40-{name}",
        title=f"Lattice iCE40 {title}",
        family=_ICE40,
        luts=luts,
        flipflops=luts,
        block_rams=block_rams,
        lut_rams=0,
        spram_blocks=spram_blocks,
        dsps=dsps,
        place_and_route_args=(f"--{name}",),
        synthesis_args=tuple(synthesis.split()),
        packages=tuple(packages.split()),
        speeds=(),
        clock_hz=clock_mhz * 1_000_000,
    )


def _ecp5(name: str, packages: str, *, luts: int, block_rams: int, dsps: int) -> Device:
    """name: like "85f", or "um5g-85f" of a variant with transceivers."""
    variant, _, size = name.upper().rpartition("-")
    return Device(
        name=f"ecp5-{name}",
        title=f"Lattice ECP5 LFE5U{variant[1:]}-{size}",
        family=_ECP5,
        luts=luts,
        flipflops=luts,
        block_rams=block_rams,
        lut_rams=luts // 8,
        spram_blocks=0,
        dsps=dsps,
        place_and_route_args=(f"--{name[:-1]}k",),
        synthesis_args=(),
        packages=tuple(packages.split()),
        # 5G devices are made in one speed grade.
        speeds=("8",) if variant == "UM5G" else ("6", "7", "8"),
        clock_hz=100_000_000,
    )


def _xilinx(
    name: str, title: str, *, luts: int, block_rams: int, dsps: int, clock_mhz: int
) -> Device:
    return Device(
        name=name,
        title=f"AMD {title}",
        family=XILINX,
        luts=luts,
        flipflops=2 * luts,
        block_rams=block_rams,
        lut_rams=luts // 16,  # the share that can be memory is larger on each of them
        spram_blocks=0,
        dsps=dsps,
        place_and_route_args=(),
        synthesis_args=(),
        packages=(),
        speeds=(),
        clock_hz=clock_mhz * 1_000_000,
    )


_SMALL_ECP5 = "CABGA381 CABGA256 CSFBGA285 TQFP144"
_MIDDLE_ECP5 = f"{_SMALL_ECP5} CABGA554"
_LARGE_ECP5 = "CABGA381 CSFBGA285 CABGA554 CABGA756"

_ALL = (
    _ice40("hx1k", "HX1K", "tq144 vq100 cb132", luts=1280, block_rams=16,
           synthesis="-device hx", clock_mhz=80),
    _ice40("hx4k", "HX4K", "tq144 bg121 cb132", synthesis="-device hx", clock_mhz=80),
    _ice40("hx8k", "HX8K", "ct256 cb132 cm225 bg121", synthesis="-device hx", clock_mhz=80),
    _ice40("lp1k", "LP1K", "cm36 cm49 cm81 cm121 qn84 cb81 cb121 swg16tr", luts=1280,
           block_rams=16, synthesis="-device lp", clock_mhz=40),
    _ice40("lp8k", "LP8K", "cm81 cm121 cm225", synthesis="-device lp", clock_mhz=40),
    _ice40("up5k", "UltraPlus UP5K", "sg48 uwg30", luts=5280, block_rams=30, spram_blocks=4,
           dsps=8, synthesis="-device u -spram", clock_mhz=36),
    _ecp5("12f", _SMALL_ECP5, luts=24_288, block_rams=56, dsps=28),
    _ecp5("25f", _SMALL_ECP5, luts=24_288, block_rams=56, dsps=28),
    _ecp5("45f", _MIDDLE_ECP5, luts=43_848, block_rams=108, dsps=72),
    _ecp5("85f", _LARGE_ECP5, luts=83_640, block_rams=208, dsps=156),
    _ecp5("um-45f", _MIDDLE_ECP5, luts=43_848, block_rams=108, dsps=72),
    _ecp5("um-85f", _LARGE_ECP5, luts=83_640, block_rams=208, dsps=156),
    _ecp5("um5g-45f", _MIDDLE_ECP5, luts=43_848, block_rams=108, dsps=72),
    _ecp5("um5g-85f", _LARGE_ECP5, luts=83_640, block_rams=208, dsps=156),
    Device(
        name="gw1n-1",
        title="Gowin GW1N-1",
        family=_GOWIN,
        luts=1152,
        flipflops=864,
        block_rams=4,
        lut_rams=0,
        spram_blocks=0,
        dsps=0,
        place_and_route_args=(),
        synthesis_args=("-family", "gw1n"),
        packages=("QN48", "QN32", "CS30", "LQ100", "LQ144"),
        speeds=("C6/I5", "C5/I4"),
        clock_hz=60_000_000,
        part="GW1N-LV1",
        chip="GW1N-1",
        pll_part="GW1N-1",
    ),
    Device(
        name="gw1nr-9",
        title="Gowin GW1NR-9",
        family=_GOWIN,
        luts=8640,
        flipflops=6480,
        block_rams=26,
        lut_rams=270,
        spram_blocks=0,
        dsps=20,
        place_and_route_args=(),
        synthesis_args=("-family", "gw1n"),
        packages=("QN88P", "QN88", "MG100P", "LQ144P"),
        speeds=("C6/I5", "C5/I4"),
        clock_hz=60_000_000,
        part="GW1NR-LV9",
        chip="GW1N-9C",
        pll_part="GW1NR-9C",
    ),
    Device(
        name="gw2a-18",
        title="Gowin GW2A-18",
        family=_GOWIN,
        luts=20_736,
        flipflops=15_552,
        block_rams=46,
        lut_rams=648,
        spram_blocks=0,
        dsps=48,
        place_and_route_args=(),
        synthesis_args=("-family", "gw2a"),
        packages=("PG256", "QN88", "EQ144", "MG196", "PG256S", "PG256C", "PG256E", "UG324",
                  "PG484", "UG484"),
        speeds=("C8/I7", "C7/I6"),
        clock_hz=80_000_000,
        part="GW2A-LV18",
        chip="GW2A-18C",
        pll_part="GW2A-18C",
    ),
    Device(
        name="gw2ar-18",
        title="Gowin GW2AR-18",
        family=_GOWIN,
        luts=20_736,
        flipflops=15_552,
        block_rams=46,
        lut_rams=648,
        spram_blocks=0,
        dsps=48,
        place_and_route_args=(),
        synthesis_args=("-family", "gw2a"),
        packages=("QN88", "QN88P", "EQ144", "EQ144P", "EQ176"),
        speeds=("C8/I7", "C7/I6"),
        clock_hz=80_000_000,
        part="GW2AR-LV18",
        chip="GW2A-18C",
        pll_part="GW2A-18C",
    ),
    _xilinx("xc7a100t", "Artix-7 XC7A100T", luts=63_400, block_rams=270, dsps=240, clock_mhz=100),
    _xilinx("xc7a200t", "Artix-7 XC7A200T", luts=134_600, block_rams=730, dsps=740, clock_mhz=100),
    _xilinx("xc7k325t", "Kintex-7 XC7K325T", luts=203_800, block_rams=890, dsps=840,
            clock_mhz=125),
    _xilinx("xcvu9p", "Virtex UltraScale+ XCVU9P", luts=1_182_240, block_rams=4320, dsps=6840,
            clock_mhz=200),
)  # fmt: skip

DEVICES: dict[str, Device] = {device.name: device for device in _ALL}
"""All devices, by name."""


def get_device(name: str) -> Device:
    """The device of this name. Raises PlanError, with the names there are."""
    if name not in DEVICES:
        raise PlanError(f"Device must be one of {', '.join(DEVICES)}, not {name!r}")
    return DEVICES[name]
