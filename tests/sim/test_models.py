# SPDX-License-Identifier: BSD-2-Clause
"""Simulation models of cells against plain statements of what yosys says of them, and its own."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.tools import run_tool
from xnorforge.sim import cell_models
from xnorforge.sim.block_ram import BlockRam, Port, Request
from xnorforge.sim.cell_models import CELL_MODELS
from xnorforge.sim.netlist_verilog import MappedNetlist
from xnorforge.sim.vectors import pack_fields, run_vectors, unpack_fields
from xnorforge.sim.verilator import MODELS

CYCLES = 600
MODES = ("kept", "new", "old")

FIELDS = {
    "a_address": 14,
    "a_data": 36,
    "b_address": 14,
    "b_data": 36,
    **{f"{port}_{pin}": 1 for port in "ab" for pin in ("enable", "write", "reset", "register")},
    "a_select": 3,
    "b_select": 3,
}


def ram_stimulus(rng):
    """Busy ports at few addresses: words are read soon after, and while, they are written."""

    def addresses():
        few = np.where(rng.random(CYCLES) < 0.6, rng.integers(0, 64, CYCLES), 0x3FC0)
        return np.where(rng.random(CYCLES) < 0.1, rng.integers(0, 1 << 14, CYCLES), few)

    def often(share):
        return rng.random(CYCLES) < share

    return {
        "a_address": addresses() | np.where(often(0.5), 15, 0),
        "b_address": addresses() | np.where(often(0.3), 15, 0),
        "a_data": rng.integers(0, 1 << 36, CYCLES),
        "b_data": rng.integers(0, 1 << 36, CYCLES),
        **{f"{port}_enable": often(0.9) for port in "ab"},
        **{f"{port}_write": often(0.5) for port in "ab"},
        **{f"{port}_reset": often(0.05) for port in "ab"},
        **{f"{port}_register": often(0.8) for port in "ab"},
        **{f"{port}_select": np.where(often(0.9), 5, rng.integers(0, 8, CYCLES)) for port in "ab"},
    }


class Instance:
    """One RAM cell under test: its Verilog, and the Python RAM that it must equal."""

    def __init__(self, rng, index, cell, widths, modes, seconds, asynchronous):
        self.cell, self.widths, self.asynchronous = cell, widths, asynchronous
        self.modes, self.seconds = modes, seconds
        self.wide = cell == "DP16KD" and 36 in widths
        self.one_port = cell in ("SP", "SPX9")
        self.one_way = cell in ("SDPB", "SDPX9B") or self.wide
        nine = cell in ("DP16KD", "SPX9", "SDPX9B", "DPX9B")
        self.contents = [int(bit) for bit in rng.integers(0, 2, 18432 if nine else 16384)]
        ports = [
            Port(width, mode, second)
            for width, mode, second in zip(widths, modes, seconds, strict=True)
        ]
        blocks = cell == "DP16KD" and not self.wide and not asynchronous
        self.ram = BlockRam(self.contents, *ports, reset_blocks=blocks)
        self.verilog = (self._ecp5 if cell == "DP16KD" else self._gowin)(rng, index)

    def _slice(self, rng, start, count, pitch_pad):
        """Initial contents of `count` bytes as a binary literal; pad bits are random."""
        digits = ""
        for byte in range(start, start + count):
            bits = self.contents[8 * byte : 8 * byte + 8]
            if len(self.contents) > 16384:
                bits = [*bits, self.contents[16384 + byte]]
            if byte % 2 and pitch_pad:
                bits += [int(bit) for bit in rng.integers(0, 2, pitch_pad)]
            digits = "".join(map(str, reversed(bits))) + digits
        return f"{len(digits)}'b{digits}"

    def _ecp5(self, rng, index):
        names = {"kept": "NORMAL", "new": "WRITETHROUGH", "old": "READBEFOREWRITE"}
        parameters = {f"INITVAL_{i:02X}": self._slice(rng, 32 * i, 32, 2) for i in range(64)}
        parameters["RESETMODE"] = '"ASYNC"' if self.asynchronous else '"SYNC"'
        pins = []
        for number, port in enumerate("AB"):
            low = port.lower()
            register = "OUTREG" if self.seconds[number] else "NOREG"
            parameters |= {
                f"DATA_WIDTH_{port}": self.widths[number],
                f"REGMODE_{port}": f'"{register}"',
                f"WRITEMODE_{port}": f'"{names[self.modes[number]]}"',
                f"CSDECODE_{port}": '"0b101"',
            }
            write = f"{low}_write" if not (self.wide and port == "B") else "1'b0"
            data = f"{low}_data[%d]"
            if self.wide and port == "B":
                data = "a_data[18 + %d]"
            pins += [f".DI{port}{i}({data % i})" for i in range(18)]
            pins += [f".AD{port}{i}({low}_address[{i}])" for i in range(14)]
            pins += [f".CS{port}{i}({low}_select[{i}])" for i in range(3)]
            pins += [f".DO{port}{i}(out_{index}[{18 * number + i}])" for i in range(18)]
            pins += [
                f".CLK{port}(clk), .CE{port}({low}_enable), .OCE{port}({low}_register)",
                f".WE{port}({write}), .RST{port}({low}_reset)",
            ]
        return self._text(parameters, pins, index)

    def _gowin(self, rng, index):
        nine = 9 if len(self.contents) > 16384 else 8
        parameters = {f"INIT_RAM_{i:02X}": self._slice(rng, 32 * i, 32, 0) for i in range(64)}
        parameters["RESET_MODE"] = '"ASYNC"' if self.asynchronous else '"SYNC"'
        modes = [MODES.index(mode) for mode in self.modes]
        if self.one_port:
            parameters |= {
                "BIT_WIDTH": self.widths[0],
                "WRITE_MODE": modes[0],
                "READ_MODE": int(self.seconds[0]),
                "BLK_SEL": "3'b101",
            }
            top = 4 * nine
            pins = [
                ".CLK(clk), .CE(a_enable), .OCE(a_register), .WRE(a_write), .RESET(a_reset)",
                f".AD(a_address), .DI(a_data[{top - 1}:0]), .BLKSEL(a_select)",
                f".DO(out_{index}[{top - 1}:0])",
            ]
            return self._text(parameters, pins, index)
        parameters |= {f"BIT_WIDTH_{i}": width for i, width in enumerate(self.widths)}
        parameters |= {"BLK_SEL_0": "3'b101", "BLK_SEL_1": "3'b101"}
        pins = [".CLKA(clk), .CLKB(clk), .CEB(b_enable), .RESETA(a_reset), .RESETB(b_reset)"]
        pins += [".BLKSELA(a_select), .BLKSELB(b_select), .ADA(a_address), .ADB(b_address)"]
        if self.one_way:
            top = 4 * nine
            parameters["READ_MODE"] = int(self.seconds[1])
            pins += [f".CEA(a_enable && a_write), .OCE(b_register), .DI(a_data[{top - 1}:0])"]
            pins += [f".DO(out_{index}[{top - 1}:0])"]
        else:
            top = 2 * nine
            for i in (0, 1):
                parameters |= {
                    f"READ_MODE{i}": int(self.seconds[i]),
                    f"WRITE_MODE{i}": modes[i],
                }
            pins += [".CEA(a_enable), .WREA(a_write), .WREB(b_write)"]
            pins += [".OCEA(a_register), .OCEB(b_register)"]
            pins += [f".DIA(a_data[{top - 1}:0]), .DIB(b_data[{top - 1}:0])"]
            pins += [f".DOA(out_{index}[{top - 1}:0]), .DOB(out_{index}[{18 + top - 1}:18])"]
        return self._text(parameters, pins, index)

    def _text(self, parameters, pins, index):
        settings = ", ".join(f".{name}({value})" for name, value in parameters.items())
        return f"{self.cell} #({settings}) ram_{index} ({', '.join(pins)});"

    def expected(self, stimulus):
        """(before, after) of every cycle: what `out` shows, and a mask of the bits that count."""
        found = []
        for cycle in range(CYCLES):
            at = {name: int(values[cycle]) for name, values in stimulus.items()}
            requests = []
            for number, port in enumerate("ab"):
                never = (self.one_port or self.one_way) and port == "b"
                requests.append(
                    Request(
                        on=bool(at[f"{port}_enable"]) and at[f"{port}_select"] == 5,
                        write=bool(at[f"{port}_write"]) and not never,
                        address=at[f"{port}_address"],
                        data=at[f"{port}_data"],
                        reset=bool(at[f"{port}_reset"]),
                        register_enable=bool(at[f"{port}_register"]),
                    )
                )
                if self.one_port and number == 1:
                    requests[1].on = False
            if self.asynchronous:  # while the clock is low
                for port, request in zip(self.ram.ports, requests, strict=True):
                    if request.reset:
                        port.latch, port.out = 0, 0
            before = self.shown()
            self.ram.edge(tuple(requests))
            found.append((before, self.shown()))
        return np.array(found, np.uint64)

    def shown(self):
        a, b = (port.shown for port in self.ram.ports)
        if self.one_port:
            return a
        if self.wide:  # a word of 36 bits is on the pins of both ports, a narrow one on port B's
            return b if self.widths[1] == 36 else b << 18
        return b if self.one_way else a | b << 18

    @property
    def mask(self):
        if self.wide and self.widths[1] != 36:
            return np.uint64((1 << 18) - 1 << 18)  # port A's pins carry nothing
        byte = len(self.contents) // 2048
        if self.one_port or self.one_way:
            return np.uint64((1 << 4 * byte) - 1)
        return np.uint64(((1 << 2 * byte) - 1) * (1 | 1 << 18))


def check_rams(folder, cells, sources, seed):
    rng = np.random.default_rng(seed)
    instances = [
        Instance(
            rng,
            index,
            cell,
            widths,
            (MODES[index % 3], MODES[(index // 3 + index) % 3]),
            (bool(index & 1), bool(index & 2)),
            index % 5 == 4,
        )
        for index, (cell, widths) in enumerate(cells)
    ]
    low, wires = 0, []
    for name, width in FIELDS.items():
        wires.append(f"wire [{width - 1}:0] {name} = stimulus[{low + width - 1}:{low}];")
        low += width
    total = 36 * len(instances)
    text = [
        f"module bench (input clk, input [{low - 1}:0] stimulus, output [{total - 1}:0] response);",
        *wires,
        *(f"wire [35:0] out_{index};" for index in range(len(instances))),
        *(instance.verilog for instance in instances),
        f"assign response = {{{', '.join(f'out_{i}' for i in reversed(range(len(instances))))}}};",
        "endmodule",
    ]
    (folder / "bench.v").write_text("\n".join(text) + "\n")
    stimulus = ram_stimulus(rng)
    bits = pack_fields([(stimulus[name], width) for name, width in FIELDS.items()])
    files = [folder / "bench.v", MODELS / "common" / "block_ram.v", *sources]
    before, after = run_vectors(files, "bench", bits, total)
    got = np.stack(
        [np.stack(unpack_fields(part, [36] * len(instances))) for part in (before, after)], axis=2
    )
    for index, instance in enumerate(instances):
        wanted = instance.expected(stimulus) & instance.mask
        wrong = np.flatnonzero((wanted != (got[index] & instance.mask)).any(axis=1))
        assert not len(wrong), (
            instance.cell,
            instance.widths,
            instance.modes,
            instance.seconds,
            instance.asynchronous,
            wrong[:5],
        )
        assert len(np.unique(wanted)) > 1  # something was seen


EVERY = pytest.mark.parametrize("step", [2, pytest.param(1, marks=pytest.mark.slow)])
"""Every second cell, or all of them."""


@EVERY
def test_dp16kd_does_what_its_properties_say(tmp_path, step):
    narrow = (1, 2, 4, 9, 18)
    wide = [(36, width) for width in (*narrow, 36)] + [(width, 36) for width in (9, 18)]
    cells = [("DP16KD", widths) for widths in [*product(narrow, narrow), *wide]]
    check_rams(tmp_path, cells[::step], [MODELS / "ecp5" / "dp16kd.v"], step)


@EVERY
def test_gowin_block_rams_do_what_their_properties_say(tmp_path, step):
    eight, nine = (1, 2, 4, 8, 16, 32), (9, 18, 36)
    cells = [("SP", (width, 1)) for width in eight]
    cells += [("SPX9", (width, 9)) for width in nine]
    cells += [("SDPB", (a, b)) for a, b in product(eight, eight) if a == b or a * b == 32]
    cells += [("SDPX9B", widths) for widths in product(nine, nine)]
    cells += [("DPB", (a, b)) for a, b in product(eight[:5], eight[:5]) if a == b or a * b == 32]
    cells += [("DPX9B", widths) for widths in product(nine[:2], nine[:2])] * 2
    check_rams(tmp_path, cells[::step], [MODELS / "gowin" / "bram.v"], step)


# --- against yosys -------------------------------------------------------------------------------

SOURCES = {
    # (name, width, depth): how it is written; `old`, `new`, `kept` say what a read during a write
    # of the same word gives, `never` that none happens.
    "old": "if (we) memory[wa] <= wd; if (re) q <= memory[ra];",
    "never": "if (we) memory[wa] <= wd; if (!we) q <= memory[ra];",
    "one_old": "if (we) memory[wa] <= wd; if (re) q <= memory[wa];",
    "one_kept": "if (we) memory[wa] <= wd; else if (re) q <= memory[wa];",
    "one_new": "if (we) memory[wa] <= wd; if (re) q <= we ? wd : memory[wa];",
}
SHAPES = [
    ("old", 16, 256),
    ("never", 36, 512),
    ("never", 9, 2048),
    ("never", 2, 2048),
    ("old", 5, 700),
    ("never", 1, 4096),
    ("one_old", 8, 512),
    ("one_kept", 20, 512),
    ("one_new", 4, 1024),
    ("never", 2, 16384),
]


CELLS = {
    "ice40": {"SB_RAM40_4K", "SB_SPRAM256KA", "SB_CARRY"},
    "ecp5": {"DP16KD", "TRELLIS_DPR16X4", "CCU2C", "TRELLIS_FF"},
    "gowin": {"SDPX9B", "DPB", "DPX9B", "SP", "SPX9", "RAM16SDP4", "ALU"},
}
"""What the mapped memories and their sum must be made of, among others."""
SUM_BITS = 24


def memory_source(rng, places, index, kind, width, depth, style="block"):
    """A memory in Verilog, with initial contents in some places but in SPRAM."""
    bits = int(depth - 1).bit_length()
    words = [
        f"memory[{place % (1 << bits)}] = {width}'d{int(rng.integers(0, 1 << width))};"
        for place in places
    ]
    return f"""
module memory_{index} (input clk, input we, input re, input [13:0] wide_wa,
    input [13:0] wide_ra, input [39:0] wide_wd, output reg [{width - 1}:0] q);
  (* ram_style = "{style}" *) reg [{width - 1}:0] memory [0:{depth - 1}];
  wire [{bits - 1}:0] wa = wide_wa, ra = wide_ra;
  wire [{width - 1}:0] wd = wide_wd;
  {"" if style == "huge" else "initial begin " + " ".join(words) + " end"}
  always @(posedge clk) begin {SOURCES[kind]} end
endmodule"""


@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
def test_mapped_memories_do_what_their_source_says(tmp_path, family):
    rng = np.random.default_rng(4)
    shapes = [(*shape, "block") for shape in SHAPES]
    if family == "ice40":
        shapes.append(("one_kept", 16, 16384, "huge"))
    else:
        shapes += [("old", 9, 64, "distributed"), ("old", 4, 16, "distributed")]
    # All over the memories; the one of 700 words has no more.
    places = [int(place) for place in rng.permutation(1 << 14) if place % 1024 < 700][:64]
    total = sum(width for _, width, _, _ in shapes) + SUM_BITS
    low, pins = 0, []
    for index, (_, width, _, _) in enumerate(shapes):
        ports = ", ".join(f".{name}({name})" for name in ("clk", "we", "re"))
        pins.append(
            f"memory_{index} memory_{index} ({ports}, .wide_wa(wa), .wide_ra(ra), .wide_wd(wd),"
            f" .q(q[{low + width - 1}:{low}]));"
        )
        low += width
    pins.append(
        f"reg [{SUM_BITS - 1}:0] sum = 0;\n"
        f"always @(posedge clk) if (we) sum <= re ? sum + wd[{SUM_BITS - 1}:0] : wd;\n"
        f"assign q[{low + SUM_BITS - 1}:{low}] = sum;"
    )
    sources = [memory_source(rng, places, index, *shape) for index, shape in enumerate(shapes)]
    head = "(input clk, input we, input re, input [13:0] wa, input [13:0] ra, input [39:0] wd,"
    plain = f"module plain {head} output [{total - 1}:0] q);\n" + "\n".join(pins) + "\nendmodule"
    text = "\n".join([*sources, plain]) + "\n"
    (tmp_path / "plain.v").write_text(text)
    (tmp_path / "source.v").write_text(text.replace("module plain", "module mapped"))
    item = FAMILIES[family]
    options = {"ice40": "-device u", "gowin": "-noiopads"}.get(family, "")
    (tmp_path / "map.ys").write_text(
        f"read_verilog source.v\n{' '.join(item.synthesis)} {options} -top mapped\n"
        "write_json netlist.json\n"
    )
    run_tool("yosys", ["map.ys"], cwd=tmp_path, log=tmp_path / "map.log")
    netlist = MappedNetlist.read(tmp_path / "netlist.json", "mapped")
    models = CELL_MODELS[family].used(netlist.cell_types)
    assert CELLS[family] <= netlist.cell_types
    (tmp_path / "mapped.v").write_text(netlist.verilog())
    (tmp_path / "cells.v").write_text(models.vendor_text)
    (tmp_path / "bench.v").write_text(
        f"module bench (input clk, input [69:0] stimulus, output [{2 * total - 1}:0] response);\n"
        + "\n".join(
            f"{name} {name} (.clk(clk), .we(stimulus[0]), .re(stimulus[1]), .wa(stimulus[15:2]),"
            f" .ra(stimulus[29:16]), .wd(stimulus[69:30]), .q(response[{low + total - 1}:{low}]));"
            for name, low in (("plain", 0), ("mapped", total))
        )
        + "\nendmodule\n"
    )
    cycles = 2000
    write = rng.random(cycles) < 0.4
    write[:64], write[64:128] = False, True
    at = rng.choice(places, cycles)
    at[:64] = at[64:128] = places  # what it powers up with, then all words written once
    again = np.where(rng.random(cycles) < 0.3, at, rng.choice(places, cycles))
    again[1:] = np.where(rng.random(cycles - 1) < 0.3, at[:-1], again[1:])
    again[:64] = places
    read = rng.random(cycles) < 0.8
    read[:64] = True
    data = rng.integers(0, 1 << 40, cycles)
    stimulus = pack_fields([(write, 1), (read, 1), (at, 14), (again, 14), (data, 40)])
    files = [tmp_path / name for name in ("bench.v", "plain.v", "mapped.v", "cells.v")]
    _, after = run_vectors([*files, *models.files], "bench", stimulus, 2 * total)
    plain_bits, mapped_bits = after[:, :total], after[:, total:]
    assert plain_bits.any() and plain_bits.shape == mapped_bits.shape
    start = 0
    for shape in [*shapes, ("sum", SUM_BITS, 0, "")]:
        part = slice(start, start + shape[1])
        differ = (plain_bits[:, part] != mapped_bits[:, part]).any(axis=1)
        if shape[3] == "huge":  # yosys' model gives anything after a write
            differ &= read & ~write & (np.arange(cycles) > 128)
        assert not differ.any(), (family, shape, np.flatnonzero(differ)[:5])
        start += shape[1]


def test_ice40_block_ram_is_yosys_but_for_bits_that_are_written_while_read(tmp_path):
    rng = np.random.default_rng(7)
    vendor = cell_models.vendor_module(CELL_MODELS["ice40"].library, "SB_RAM40_4K")
    (tmp_path / "vendor.v").write_text(
        cell_models.vendor_macros(CELL_MODELS["ice40"].library)
        + vendor.replace("SB_RAM40_4K", "vendor_ram", 1)
    )
    # Of writing, of reading.
    modes = [*((mode, mode) for mode in range(4)), (0, 3), (3, 0), (1, 2), (2, 1)]
    lines = []  # each of those modes of writing and of reading
    for index, (write_mode, read_mode) in enumerate(modes):
        words = [int.from_bytes(rng.bytes(32), "little") for _ in range(16)]
        init = ", ".join(f".INIT_{i:X}(256'h{word:064x})" for i, word in enumerate(words))
        for at, name in ((index, "SB_RAM40_4K"), (8 + index, "vendor_ram")):
            lines.append(
                f"{name} #(.WRITE_MODE({write_mode}), .READ_MODE({read_mode}), {init}) ram_{at} ("
                ".WCLK(clk), .RCLK(clk), .WADDR(stimulus[10:0]), .RADDR(stimulus[21:11]),"
                " .WDATA(stimulus[37:22]), .MASK(stimulus[53:38]), .WE(stimulus[54]),"
                " .WCLKE(stimulus[55]), .RE(stimulus[56]), .RCLKE(stimulus[57]),"
                f" .RDATA(response[{16 * at + 15}:{16 * at}]));"
            )
    ports = f"input clk, input [65:0] stimulus, output [{32 * len(modes) - 1}:0] response"
    head = f"module bench ({ports});"
    (tmp_path / "bench.v").write_text("\n".join([head, *lines, "endmodule"]) + "\n")
    cycles = 4000
    to = rng.integers(0, 1 << 11, cycles)
    near = to & 0x700 | rng.integers(0, 4, cycles)
    to = np.where(rng.random(cycles) < 0.7, near, to)
    of = np.where(rng.random(cycles) < 0.4, rng.permutation(8)[rng.integers(0, 8, cycles)] << 8, 0)
    of = to & 0xFF | of | np.where(rng.random(cycles) < 0.3, rng.integers(0, 256, cycles), 0)
    data, mask = rng.integers(0, 1 << 16, (2, cycles))
    enables = rng.random((4, cycles)) < 0.8
    fields = [(to, 11), (of, 11), (data, 16), (mask, 16), *((enable, 1) for enable in enables)]
    fields.append((np.zeros(cycles, np.int64), 8))  # vectors have more than 64 bits
    files = [tmp_path / "bench.v", tmp_path / "vendor.v", MODELS / "ice40" / "sb_ram40_4k.v"]
    _, after = run_vectors(files, "bench", pack_fields(fields), 32 * len(modes))
    words = unpack_fields(after, [16] * (2 * len(modes)))
    writes, reads = enables[0] & enables[1], enables[2] & enables[3]
    first = int(reads.argmax())  # anything before
    for index, (write_mode, read_mode) in enumerate(modes):
        clash = np.zeros(cycles, np.int64)  # pins of what was read last
        for t in range(cycles):
            clash[t] = clash[t - 1] if t else 0
            if reads[t]:
                clash[t] = 0
                if writes[t] and (to[t] ^ of[t]) & 0xFF == 0:
                    for bit in range(16):
                        written = mask[t] >> bit & 1 == 0 if write_mode == 0 else True
                        for mode, address in ((write_mode, to[t]), (read_mode, of[t])):
                            step = 1 << mode
                            written = written and bit % step == address >> 8 & step - 1
                        pin = bit // (1 << read_mode) * (1 << read_mode) + (0, 0, 1, 3)[read_mode]
                        clash[t] |= int(written) << pin
        ours, yosys = words[index].astype(np.int64), words[8 + index].astype(np.int64)
        wrong = first + np.flatnonzero((ours ^ yosys != clash)[first:])
        assert not len(wrong), (write_mode, read_mode, wrong[:5])
        assert np.count_nonzero(clash) > 50 and len(np.unique(yosys)) > 2


LUTS = {
    "ice40": [("SB_LUT4", "LUT_INIT", 4, ("I0", "I1", "I2", "I3"), "O")],
    "ecp5": [("LUT4", "INIT", 4, tuple("ABCD"), "Z"), ("LUT2", "INIT", 2, tuple("AB"), "Z")],
    "gowin": [(f"LUT{n}", "INIT", n, tuple(f"I{i}" for i in range(n)), "F") for n in range(1, 5)],
}


@pytest.mark.parametrize(
    "family", [pytest.param(key, marks=[pytest.mark.slow] * (key != "gowin")) for key in LUTS]
)
def test_our_look_up_tables_are_the_vendors(tmp_path, family):
    """All inputs of some tables in both models; the vendor's is named vendor_..."""
    rng = np.random.default_rng(9)
    lines, text, count = [], "", 0
    for name, parameter, inputs, pins, out in LUTS[family]:
        vendor = cell_models.vendor_module(CELL_MODELS[family].library, name)
        text += vendor.replace(name, f"vendor_{name}", 1) + "\n"
        for _ in range(20):
            table = int(rng.integers(0, 1 << (1 << inputs)))
            ports = ", ".join(f".{pin}(stimulus[{i}])" for i, pin in enumerate(pins))
            for prefix in ("", "vendor_"):
                lines.append(
                    f"{prefix}{name} #(.{parameter}({1 << inputs}'d{table})) c{count} "
                    f"({ports}, .{out}(response[{count}]));"
                )
                count += 1
    (tmp_path / "vendor.v").write_text(
        cell_models.vendor_macros(CELL_MODELS[family].library) + text
    )
    (tmp_path / "bench.v").write_text(
        f"module bench (input clk, input [64:0] stimulus, output [{count + 64}:0] response);\n"
        + "\n".join(lines)
        + f"\nassign response[{count + 64}:{count}] = 0;\nendmodule\n"
    )
    stimulus = pack_fields([(np.arange(16), 4), (np.zeros(16), 61)])
    own = CELL_MODELS[family].used([name for name, *_ in LUTS[family]])
    assert own.vendor == ()
    files = [tmp_path / "bench.v", tmp_path / "vendor.v", *own.files]
    _, after = run_vectors(files, "bench", stimulus, count + 65)
    assert (after[:, 0:count:2] == after[:, 1:count:2]).all()
    assert after[:, 0:count:2].any()


def test_plls_pass_the_clock_on_and_lock_after_8_cycles(tmp_path):
    plls = {
        "SB_PLL40_CORE": ("REFERENCECLK", "PLLOUTGLOBAL", ".RESETB(1'b1), .BYPASS(1'b0)"),
        "SB_PLL40_PAD": ("PACKAGEPIN", "PLLOUTGLOBAL", ".RESETB(1'b1), .BYPASS(1'b0)"),
        "EHXPLLL": ("CLKI", "CLKOP", ".RST(1'b0)"),
        "rPLL": ("CLKIN", "CLKOUT", ".RESET(1'b0), .RESET_P(1'b0)"),
    }
    lines = [
        f"{name} p{i} (.{clock}(clk), {pins}, .{out}(response[{2 * i}]), "
        f".LOCK(response[{2 * i + 1}]));"
        for i, (name, (clock, out, pins)) in enumerate(plls.items())
    ]
    (tmp_path / "bench.v").write_text(
        "module bench (input clk, input [64:0] stimulus, output [64:0] response);\n"
        + "\n".join(lines)
        + "\nassign response[64:8] = 0;\nendmodule\n"
    )
    files = [tmp_path / "bench.v", *sorted(MODELS.glob("*pll*.v"))]
    before, after = run_vectors(files, "bench", np.zeros((20, 65), np.uint8), 65)
    for i in range(len(plls)):
        assert not before[:, 2 * i].any() and after[:, 2 * i].all()
        assert list(after[:, 2 * i + 1]) == [0] * 7 + [1] * 13


def test_ecp5_flip_flops_power_up_as_told(tmp_path):
    """yosys' TRELLIS_FF takes its first value from a parameter, through wires."""
    (tmp_path / "bench.v").write_text(
        "module bench (input clk, input [64:0] stimulus, output [64:0] response);\n"
        + "\n".join(
            f'TRELLIS_FF #(.REGSET("{value}"), .CEMUX("CE"), .SRMODE("{mode}")) c{i} (.CLK(clk),'
            f" .CE(stimulus[0]), .LSR(stimulus[1]), .DI(stimulus[2]), .Q(response[{i}]));"
            for i, (value, mode) in enumerate(product(("RESET", "SET"), ("LSR_OVER_CE", "ASYNC")))
        )
        + "\nassign response[64:4] = 0;\nendmodule\n"
    )
    models = CELL_MODELS["ecp5"].used(["TRELLIS_FF"])
    (tmp_path / "cells.v").write_text(models.vendor_text)
    enable, reset, data = [0, 0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0, 1]
    stimulus = pack_fields(
        [(np.array(enable), 1), (np.array(reset), 1), (np.array(data), 1), (np.zeros(7), 62)]
    )
    files = [tmp_path / "bench.v", tmp_path / "cells.v"]
    before, after = run_vectors(files, "bench", stimulus, 65)
    for i, (first, asynchronous) in enumerate(product((0, 1), (False, True))):
        assert list(after[:, i]) == [first, first, 0, 1, 1, 0, first]
        assert list(before[:, i]) == [first, first, first, 0, 1, 1, first if asynchronous else 0]
