# SPDX-License-Identifier: BSD-2-Clause
"""The simulated PCIe card with a loopback behind LitePCIe's core: what a program meets there."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xnorforge.gen.errors import PlanError, ToolError
from xnorforge.sim.pcie_card import PcieCard
from xnorforge.sw.blocks import BLOCK_BYTES

LOOPBACK = Path(__file__).parent / "fixtures" / "pcie_loopback.v"
BUFFERS = 4
SCRATCH, IDENTIFIER, WINDOW = 0x4, 0x3800, 0x20000
WRITER_STATUS, READER_STATUS = 0x4014, 0x4034
SCRATCH_AFTER_RESET = 0x12345678
ONES = 0xFFFFFFFF


class Client:
    """A program that has opened the card, and locked both directions."""

    def __init__(self, port: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(port.rpartition(":")[2])), 60)
        self.lines = self.socket.makefile("rw")
        self.greeting = json.loads(self.lines.readline())
        count = self.greeting["buffers"]
        memory = np.memmap(self.greeting["memory"], np.uint8, "r+", shape=(2 * count, BLOCK_BYTES))
        self.tx, self.rx = memory[:count], memory[count:]
        assert self.ask("lock") == {"ok": True}

    def ask(self, op: str, **details: object) -> dict:
        self.lines.write(json.dumps({"op": op, **details}) + "\n")
        self.lines.flush()
        return json.loads(self.lines.readline())

    def read(self, address: int) -> int:
        return self.ask("read", address=address)["value"]

    def write(self, address: int, value: int) -> None:
        assert self.ask("write", address=address, value=value) == {}

    def switch(self, on: bool) -> None:
        """Both directions; the way out first, as nothing would take what comes in."""
        for side in ("writer", "reader") if on else ("reader", "writer"):
            assert self.ask(side, enable=on) == {}

    def came_back(self) -> np.ndarray:
        """Of which buffers; the loopback inverts."""
        return (self.rx == 255 - self.tx).all(axis=1)

    def wait_until_back(self) -> None:
        for _ in range(100):
            if self.came_back().all():
                return
            self.ask("wait", cycles=2000)
        raise AssertionError(f"came back: {self.came_back()}")


@contextlib.contextmanager
def client(card: PcieCard) -> Iterator[Client]:
    opened = Client(card.port)
    try:
        yield opened
    finally:
        opened.lines.close()
        opened.socket.close()


def fill(rng: np.random.Generator, opened: Client) -> None:
    opened.rx[:] = 0
    opened.tx[:] = rng.integers(0, 256, opened.tx.shape)


@pytest.fixture(scope="module")
def card() -> Iterator[PcieCard]:
    with PcieCard([LOOPBACK], generation=2, lanes=4, buffers=BUFFERS, core_period_ps=6250) as made:
        yield made


def test_the_card_is_found_and_answers(card: PcieCard) -> None:
    with client(card) as opened:
        assert opened.greeting["device"] == "litepcie"
        assert (opened.greeting["buffers"], opened.greeting["buffer_bytes"]) == (BUFFERS, 8192)
        assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET
        text = "".join(chr(opened.read(IDENTIFIER + 4 * k)) for k in range(9))
        assert text == "xnorforge"
        opened.write(SCRATCH, 0xDEADBEEF)
        assert opened.read(SCRATCH) == 0xDEADBEEF
        opened.write(SCRATCH, SCRATCH_AFTER_RESET)
        link = opened.ask("link")
        assert link == {"generation": 2, "lanes": 4, "bytes_per_second": 2e9}


def test_time_passes_only_while_asked(card: PcieCard) -> None:
    with client(card) as opened:
        before = opened.ask("time")["ns"]
        assert opened.ask("time")["ns"] == before
        opened.ask("wait", cycles=100)
        assert opened.ask("time")["ns"] == pytest.approx(before + 100 * 8, abs=1)


def test_registers_of_the_accelerator(card: PcieCard) -> None:
    with client(card) as opened:
        for k in range(15):
            opened.write(WINDOW + 4 * k, 0x01010101 * k)
        assert [opened.read(WINDOW + 4 * k) for k in range(15)] == [
            0x01010101 * k for k in range(15)
        ]
        # 13 bits of the address arrive: the window repeats itself.
        assert opened.read(WINDOW + 0x2000 + 4 * 7) == 0x07070707
        first, ns = opened.read(WINDOW + 0x40), opened.ask("time")["ns"]
        opened.ask("wait", cycles=1000)
        passed = opened.read(WINDOW + 0x40) - first
        assert passed == pytest.approx((opened.ask("time")["ns"] - ns) / 6.25, abs=3)


def test_an_error_of_the_accelerator_reads_as_zero(card: PcieCard) -> None:
    with client(card) as opened:
        assert opened.read(WINDOW + 0x44) == 0
        assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET


def test_dma_goes_round_and_round(card: PcieCard) -> None:
    rng = np.random.default_rng(0)
    with client(card) as opened:
        fill(rng, opened)
        opened.switch(True)
        opened.wait_until_back()
        for _ in range(3):
            opened.tx[:] = rng.integers(0, 256, opened.tx.shape)
            opened.wait_until_back()
        status = opened.read(WRITER_STATUS)
        assert (status >> 16) * BUFFERS + (status & 0xFFFF) >= 3 * BUFFERS
        opened.switch(False)


def test_a_stopped_dma_stands_still_and_starts_from_the_first_buffers(card: PcieCard) -> None:
    rng = np.random.default_rng(1)
    with client(card) as opened:
        for _ in range(3):
            fill(rng, opened)
            opened.switch(True)
            while not opened.rx[1].any():
                opened.ask("wait", cycles=500)
            assert opened.came_back()[0]
            opened.switch(False)
            opened.rx[:] = 0
            opened.ask("wait", cycles=20_000)
            assert not opened.rx.any()


def test_a_program_that_goes_away_stops_the_dma(card: PcieCard) -> None:
    with client(card) as opened:
        fill(np.random.default_rng(2), opened)
        opened.switch(True)
        opened.ask("wait", cycles=500)
    with client(card) as opened:
        opened.rx[:] = 0
        opened.ask("wait", cycles=20_000)
        assert not opened.rx.any()
        assert opened.ask("lock") == {"ok": False}


@pytest.mark.parametrize("cycles", [0, 317, 4001])
def test_reset_in_the_middle_of_transfers(card: PcieCard, cycles: int) -> None:
    rng = np.random.default_rng(cycles)
    with client(card) as opened:
        fill(rng, opened)
        opened.write(SCRATCH, 1)
        opened.write(WINDOW + 4, 5)
        opened.switch(True)
        if cycles:
            opened.ask("wait", cycles=cycles)
        opened.ask("reset")
        assert opened.read(SCRATCH) == ONES
        assert opened.read(WINDOW + 4) == ONES
        assert opened.ask("raw_read", address=SCRATCH, length=4) == {"status": "gone"}
        opened.rx[:] = 0
        opened.switch(False)
        opened.switch(True)
        opened.ask("wait", cycles=5_000)
        assert not opened.rx.any()
        assert opened.ask("rescan") == {}
        assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET
        assert opened.read(READER_STATUS) == 0
        assert opened.ask("lock") == {"ok": True}
        opened.switch(True)
        opened.wait_until_back()


def test_a_program_that_comes_after_a_reset_finds_the_card(card: PcieCard) -> None:
    with client(card) as opened:
        opened.switch(True)
        opened.ask("reset")
    with client(card) as opened:
        assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET


@pytest.mark.parametrize(
    ("address", "length", "status"),
    [
        (SCRATCH, 1, "malformed completion"),  # LitePCIe answers with whole words
        (SCRATCH + 3, 1, "malformed completion"),
        (SCRATCH, 8, "malformed completion"),
        (WINDOW + 2, 4, "ok"),  # a request of two words, answered with one
        (WINDOW, 64, "malformed completion"),
        (0x10000, 4, "ok"),  # nothing is there: ones
        (0x40000 + SCRATCH, 4, "ok"),  # behind LitePCIe's 256 KiB they come again
        (0x100000, 4, "Unsuccessful completion"),  # behind the BAR
        (1 << 40, 4, "Invalid address"),
    ],
)
def test_strange_reads_are_answered(card: PcieCard, address: int, length: int, status: str) -> None:
    with client(card) as opened:
        found = opened.ask("raw_read", address=address, length=length)
        assert found["status"] == status
        if address == 0x10000:
            assert found["data"] == "ff" * 4
        assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET


def test_strange_writes_leave_the_card_alive(card: PcieCard) -> None:
    rng = np.random.default_rng(3)
    with client(card) as opened:
        for address, size in ((WINDOW + 1, 1), (WINDOW + 2, 4), (WINDOW, 64), (0x10000, 4)):
            given = opened.ask("raw_write", address=address, bytes=rng.bytes(size).hex())
            assert given == {"status": "ok"}
            assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET
        fill(rng, opened)
        opened.switch(True)
        opened.wait_until_back()


def test_a_question_that_makes_no_sense_is_answered(card: PcieCard) -> None:
    with client(card) as opened:
        assert "no such question" in opened.ask("fly")["error"]
        assert "not a word" in opened.ask("read", address=3)["error"]
        assert opened.read(SCRATCH) == SCRATCH_AFTER_RESET


@pytest.mark.parametrize(("generation", "lanes"), [(1, 1), (3, 4)])
def test_dma_is_as_fast_as_the_link(generation: int, lanes: int) -> None:
    """Writes of 128 bytes take 148 to 152 of a link; the card reaches 95 % of that or more."""
    made = PcieCard([LOOPBACK], generation=generation, lanes=lanes, seed=7)
    with made, client(made) as opened:
        opened.write(WINDOW + 4 * 15, 2)  # a count of beats
        link = opened.ask("link")["bytes_per_second"]
        opened.ask("writer", enable=True)
        for _ in range(1000):
            opened.ask("wait", cycles=10)
            if opened.rx[0, -1 - 15 :].any():
                break
        start = opened.ask("time")["ns"]
        while not opened.rx[10, -1 - 15 :].any():
            opened.ask("wait", cycles=10)
        rate = 10 * BLOCK_BYTES / (opened.ask("time")["ns"] - start) * 1e9
        beats = opened.rx[:10].reshape(-1, 16).copy().view("<u4")[:, 0]
        assert (beats == np.arange(len(beats))).all()
    assert 0.95 * 128 / 152 <= rate / link <= 1


@pytest.mark.parametrize(
    "wrong", [{"generation": 4}, {"lanes": 3}, {"buffers": 0}, {"payload_bytes": 64}]
)
def test_settings_that_cannot_be_are_named(wrong: dict) -> None:
    with pytest.raises(PlanError, match=next(iter(wrong))):
        PcieCard([LOOPBACK], **wrong)


@pytest.mark.parametrize(
    ("package", "extra"), [("cocotbext.pcie", "sim"), ("litepcie", "pcie"), ("litex", "pcie")]
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    from xnorforge.sim import pcie_card

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    pcie_card._card.cache_clear()
    with pytest.raises(ToolError, match=rf"not installed: pip install 'xnorforge\[{extra}\]'"):
        PcieCard([LOOPBACK])
