# SPDX-License-Identifier: BSD-2-Clause
"""Devices as data: what an FPGA holds and how its tools are called.

A new device of a known family is one entry here. A new family also needs a `Family` and, in
`gen.constraints`, its constraint file.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnorforge.gen.errors import PlanError

__all__ = ["DEVICES", "FAMILIES", "Device", "Family", "get_device"]


@dataclass(frozen=True)
class Family:
    """What all devices of a family share.

    block_ram_shapes: (width, depth) of one block as a simple dual-port memory, widest first.
    lut_ram: look-up tables can be memory (distributed RAM).
    synthesis: yosys command that maps to the family, without `-top` and `-json`.
    place_and_route, packer: names in `gen.tools`.
    constraints_suffixes: of the constraint files that nextpnr reads, pins first.
    routed_suffix, routed_option: suffix of nextpnr's routed result, and the option that names it.
    cell_keys: what nextpnr's report calls logic cells, block RAMs and DSPs; several are added up.
        On iCE40 a logic cell is a LUT4 with its carry and flip-flop; on ECP5 a LUT4; on Gowin a
        LUT4, a carry, or the LUT4 that a flip-flop takes whose input comes from elsewhere.
    flip_flop_prefix: how the names of flip-flop cells begin in yosys's netlist.
    """

    name: str
    block_ram_shapes: tuple[tuple[int, int], ...]
    lut_ram: bool
    synthesis: tuple[str, ...]
    place_and_route: str
    packer: str
    bitstream_suffix: str
    constraints_suffixes: tuple[str, ...]
    routed_suffix: str
    routed_option: str
    cell_keys: dict[str, tuple[str, ...]]
    flip_flop_prefix: str

    @property
    def block_ram_width_bits(self) -> int:
        """Widest word of one block: also the column width of `weights.bin`."""
        return self.block_ram_shapes[0][0]

    @property
    def block_ram_bits(self) -> int:
        """Bits of one block."""
        width, depth = self.block_ram_shapes[0]
        return width * depth


@dataclass(frozen=True)
class Device:
    """One FPGA.

    luts: LUT4s. flipflops. block_rams: blocks of `family.block_ram_bits`. lut_rams: LUT RAM
    primitives of 16 x 4 bits. spram_blocks: single-port blocks of 16 bits x 16,384 that cannot
    be initialised (UP5K). dsps: multiplier blocks.
    place_and_route_args: nextpnr arguments that name the device. synthesis_args: what the
    device adds to its family's synthesis command. package, speed: used when no board names one
    ("" where the family has no speed grades). clock_hz: core clock when nothing else is asked.
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
    package: str
    speed: str
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
    bitstream_suffix=".bin",
    constraints_suffixes=(".pcf",),
    routed_suffix=".asc",
    routed_option="--asc",
    cell_keys={
        "logic_cells": ("ICESTORM_LC",),
        "block_rams": ("ICESTORM_RAM",),
        "dsps": ("ICESTORM_DSP",),
    },
    flip_flop_prefix="SB_DFF",
)
_ECP5 = Family(
    name="ecp5",
    block_ram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    lut_ram=True,
    # Wide LUTs double the cost of popcounts: 4.3 instead of 2.0 LUT4 a bit.
    synthesis=("synth_ecp5", "-nowidelut", "-abc9"),
    place_and_route="nextpnr-ecp5",
    packer="ecppack",
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
)
_GOWIN = Family(
    name="gowin",
    block_ram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    lut_ram=True,
    # -setundef: gowin_pack takes no undefined parameter.
    synthesis=("synth_gowin", "-nowidelut", "-setundef"),
    place_and_route="nextpnr-himbaechel-gowin",
    packer="gowin_pack",
    bitstream_suffix=".fs",
    constraints_suffixes=(".cst", ".sdc"),
    routed_suffix=".json",
    routed_option="--write",
    cell_keys={
        "logic_cells": ("LUT4", "ALU"),
        "block_rams": ("BSRAM",),
        "dsps": ("MULT18X18",),
    },
    flip_flop_prefix="DFF",
)

FAMILIES: dict[str, Family] = {family.name: family for family in (_ICE40, _ECP5, _GOWIN)}


def _ecp5(size: str, luts: int, block_rams: int, dsps: int) -> Device:
    return Device(
        name=f"ecp5-{size}f",
        title=f"Lattice ECP5 LFE5U-{size}F",
        family=_ECP5,
        luts=luts,
        flipflops=luts,
        lut_rams=luts // 8,
        block_rams=block_rams,
        spram_blocks=0,
        dsps=dsps,
        place_and_route_args=(f"--{size}k",),
        synthesis_args=(),
        package="CABGA381",
        speed="6",
        clock_hz=100_000_000,
    )


_ALL = (
    Device(
        name="ice40-up5k",
        title="Lattice iCE40 UltraPlus UP5K",
        family=_ICE40,
        luts=5280,
        flipflops=5280,
        lut_rams=0,
        block_rams=30,
        spram_blocks=4,
        dsps=8,
        place_and_route_args=("--up5k",),
        synthesis_args=("-device", "u", "-spram"),
        package="sg48",
        speed="",
        clock_hz=30_000_000,
    ),
    Device(
        name="ice40-hx8k",
        title="Lattice iCE40 HX8K",
        family=_ICE40,
        luts=7680,
        flipflops=7680,
        lut_rams=0,
        block_rams=32,
        spram_blocks=0,
        dsps=0,
        place_and_route_args=("--hx8k",),
        synthesis_args=("-device", "hx"),
        package="ct256",
        speed="",
        clock_hz=100_000_000,
    ),
    _ecp5("25", luts=24_288, block_rams=56, dsps=28),
    _ecp5("45", luts=43_848, block_rams=108, dsps=72),
    _ecp5("85", luts=83_640, block_rams=208, dsps=156),
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
        package="QN88P",
        speed="C6/I5",
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
        package="PG256",
        speed="C8/I7",
        clock_hz=80_000_000,
        part="GW2A-LV18",
        chip="GW2A-18C",
        pll_part="GW2A-18C",
    ),
)

DEVICES: dict[str, Device] = {device.name: device for device in _ALL}
"""All devices, by name."""


def get_device(name: str) -> Device:
    """The device of this name. Raises PlanError, with the names there are."""
    if name not in DEVICES:
        raise PlanError(f"Device must be one of {', '.join(DEVICES)}, not {name!r}")
    return DEVICES[name]
