# SPDX-License-Identifier: BSD-2-Clause
"""Simulation models of cells against plain statements of their data sheets, and against yosys."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from xnorforge.sim.block_ram import BlockRam, Port, Request
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


def test_dp16kd_does_what_the_data_sheet_says(tmp_path):
    narrow = (1, 2, 4, 9, 18)
    wide = [(36, width) for width in (*narrow, 36)] + [(width, 36) for width in (9, 18)]
    cells = [("DP16KD", widths) for widths in [*product(narrow, narrow), *wide]]
    check_rams(tmp_path, cells, [MODELS / "ecp5" / "dp16kd.v"], 1)


@pytest.mark.parametrize("kind", ["one_port", "two_ports"])
def test_gowin_block_rams_do_what_the_data_sheet_says(tmp_path, kind):
    eight, nine = (1, 2, 4, 8, 16, 32), (9, 18, 36)
    if kind == "one_port":
        cells = [("SP", (width, 1)) for width in eight * 2]
        cells += [("SPX9", (width, 9)) for width in nine * 3]
    else:
        cells = [("SDPB", (a, b)) for a, b in product(eight, eight) if a == b or a * b == 32]
        cells += [("SDPX9B", widths) for widths in product(nine, nine)]
        cells += [
            ("DPB", (a, b)) for a, b in product(eight[:5], eight[:5]) if a == b or a * b == 32
        ]
        cells += [("DPX9B", widths) for widths in product(nine[:2], nine[:2])] * 2
    check_rams(tmp_path, cells, [MODELS / "gowin" / "bram.v"], 2)
