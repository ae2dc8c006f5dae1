# SPDX-License-Identifier: BSD-2-Clause
"""The driver over PCIe: a card in plain Python that fetches its ring when it likes."""

import subprocess
import sysconfig
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from xnorforge.sim.toy_board import (
    OTHER,
    WEIGHTS,
    toy_bundle,
    toy_images,
    toy_load,
    toy_scores,
)
from xnorforge.sim.toy_card import CARD, ToyCard
from xnorforge.sw import endpoint, errors, litepcie
from xnorforge.sw.blocks import BLOCK_BYTES
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.pcie import PcieBus
from xnorforge.sw.protocol import crc32

LINK = {"kind": "pcie", **asdict(CARD)}


@pytest.fixture
def bundle(tmp_path):
    return toy_bundle(tmp_path / "bundle", link=LINK)


@pytest.fixture
def plugged(monkeypatch):
    """Makes a card what every port leads to."""

    def plug(card):
        def open_card(port, where, classes):
            return PcieBus(card.opened(), where, classes)

        monkeypatch.setattr(endpoint, "open_card", open_card)
        return card

    return plug


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_the_cores_whenever_the_card_fetches(bundle, plugged, seed):
    card = plugged(ToyCard(seed=seed, buffers=(16, 32)[seed % 2], fetched=(1, 33, 60)[seed % 3]))
    rng = np.random.default_rng(seed)
    with Accelerator.open(bundle, "card") as board:
        for _ in range(12):
            images = toy_images(int(rng.integers(1, 900)), seed)
            assert (board.scores(images) == toy_scores(images)).all()
        images = toy_images(300, seed)
        records = list(board.stream(iter(images)))
        assert (np.array([record.scores for record in records]) == toy_scores(images)).all()
        assert board.statistics.link.payload_resent == 0
    assert card.opens == 1 and card.dropped > 0


def test_counts_that_wrap_are_followed(bundle, plugged):
    card = plugged(ToyCard(buffers=16))
    card.rounds = (1 << 16) - 2
    images = toy_images(900)
    with Accelerator.open(bundle, "card") as board:
        for start in range(0, 900, 10):
            part = images[start : start + 10]
            assert (board.scores(part) == toy_scores(part)).all()


def test_two_models_alternate_and_keep_their_slots(bundle, plugged):
    card = plugged(ToyCard(models=2))
    images = toy_images(40)
    with Accelerator.open(bundle, "card") as board:
        for turn in range(6):
            weights = (OTHER, WEIGHTS)[turn % 2]
            board.load_weights(toy_load(weights))
            assert (board.scores(images) == toy_scores(images, weights)).all()
        assert sorted(card.digests) == sorted([crc32(WEIGHTS), crc32(OTHER)])

        def source():
            for index, image in enumerate(toy_images(200)):
                if index == 90:
                    board.load_weights(toy_load(OTHER))
                yield image

        found = np.array([record.scores for record in board.stream(source())])
    images = toy_images(200)
    np.testing.assert_array_equal(found[:90], toy_scores(images[:90]))
    np.testing.assert_array_equal(found[90:], toy_scores(images[90:], OTHER))


def test_card_without_the_weights_gets_them(bundle, plugged):
    card = plugged(ToyCard())
    card.digests = [None]
    images = toy_images(5)
    told = []
    with Accelerator.open(bundle, "card", progress=lambda *at: told.append(at)) as board:
        assert told[-1] == (1028, 1028)
        assert (board.scores(images) == toy_scores(images)).all()
    card.digests = [3]
    with pytest.raises(errors.BundleMismatchError, match="has weights 00000003"):
        Accelerator.open(bundle, "card", load="never")
    card.garble = True
    with pytest.raises(errors.WeightsError, match="after a load of"):
        Accelerator.open(bundle, "card")


def test_reset_in_the_middle_is_recovered(bundle, plugged):
    card = plugged(ToyCard())
    images = toy_images(1500)
    with Accelerator.open(bundle, "card", timeout=2.0) as board:
        stream = board.stream(iter(images))
        found = [next(stream).scores for _ in range(40)]
        card.power_cycle()
        found += [record.scores for record in stream]
        assert (np.array(found) == toy_scores(images)).all()
        stream = board.stream(iter(images))
        found = [next(stream).scores for _ in range(40)]
        card.power_cycle()
        card.gone = True
        read = card.read

        def back(address):  # it is looked for some times, and then there again
            card.gone = back.left > 0
            back.left -= 1
            return read(address)

        back.left, card.read = 20, back
        found += [record.scores for record in stream]
        assert (np.array(found) == toy_scores(images)).all()
        assert board.statistics.reconnects > 0


def test_card_that_is_gone_or_stands_still_is_an_error(bundle, plugged):
    card = plugged(ToyCard())
    board = Accelerator.open(bundle, "card", timeout=0.4)
    card.stopped = True
    with pytest.raises(errors.LinkLostError, match=r"on card answers but takes and gives no data"):
        board.classify(toy_images(3))
    card.stopped, card.gone = False, True
    with pytest.raises(errors.PortError, match="card went away"):
        board.classify(toy_images(3))
    card.gone = False
    assert (board.scores(toy_images(3)) == toy_scores(toy_images(3))).all()
    board.close()


def test_stream_closed_early_leaves_nothing_behind(bundle, plugged):
    plugged(ToyCard())
    images = toy_images(3000)
    with Accelerator.open(bundle, "card") as board:
        for _ in range(5):
            stream = board.stream(iter(images))
            next(stream)
            stream.close()
            assert (board.scores(images[:9]) == toy_scores(images[:9])).all()


def test_another_card_another_plan_or_another_program(bundle, plugged):
    card = plugged(ToyCard())
    with Accelerator.open(bundle, "card"), pytest.raises(errors.PortError, match="is in use"):
        Accelerator.open(bundle, "card")
    card.shape.plan_hash = 2
    with pytest.raises(errors.BundleMismatchError, match=r"plan 00000002.*1234abcd"):
        Accelerator.open(bundle, "card")
    card.shape.magic = 0
    with pytest.raises(errors.ForeignDeviceError, match="its register 0 is 00000000"):
        Accelerator.open(bundle, "card")


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("/dev/litepcie99", "load LitePCIe's driver"),
        ("/dev/null", "not a card of LitePCIe's driver"),
        ("socket://127.0.0.1:1", "start the simulated board"),
        ("socket://nowhere", "write socket://host:port"),
    ],
)
def test_device_file_that_is_none(bundle, port, message):
    with pytest.raises(errors.PortError, match=message):
        Accelerator.open(bundle, port)
    with pytest.raises(errors.PortError, match="has no baud rate"):
        Accelerator.open(bundle, port, baud=9600)


def test_ioctls_are_those_of_the_drivers_header(tmp_path):
    """LitePCIe's own C header, compiled, against the numbers and layouts here."""
    kernel = Path(sysconfig.get_path("purelib")) / "litepcie" / "software" / "kernel"
    if not kernel.is_dir():
        pytest.skip("litepcie is not installed")
    text = (kernel / "litepcie.h").read_text()
    assert "BUFFER_SIZE" in (kernel / "config.h").read_text()
    (tmp_path / "litepcie.h").write_text(
        "\n".join(line for line in text.splitlines() if '#include "' not in line)
    )
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\n#include <stdint.h>\n#include <sys/ioctl.h>\n"
        '#include "litepcie.h"\nint main(void) {\n'
        'printf("%lu %lu %lu %lu %lu\\n", (unsigned long)LITEPCIE_IOCTL_REG, '
        "(unsigned long)LITEPCIE_IOCTL_DMA_WRITER, (unsigned long)LITEPCIE_IOCTL_DMA_READER, "
        "(unsigned long)LITEPCIE_IOCTL_MMAP_DMA_INFO, (unsigned long)LITEPCIE_IOCTL_LOCK);\n"
        "return 0; }\n"
    )
    program = tmp_path / "main"
    subprocess.run(
        ["gcc", "-I", str(tmp_path), "-o", str(program), str(tmp_path / "main.c")], check=True
    )
    found = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert [int(number) for number in found] == [
        litepcie._IOCTL_REGISTER,
        litepcie._IOCTL_WRITER,
        litepcie._IOCTL_READER,
        litepcie._IOCTL_INFO,
        litepcie._IOCTL_LOCK,
    ]


# --- leases ---------------------------------------------------------------------------------------


def test_numbers_that_come_again_bring_no_old_results(bundle, plugged):
    """255 leases later the epoch is the same, and the old one's results still lie in the ring."""
    card = plugged(ToyCard())
    images = toy_images(1500)
    with Accelerator.open(bundle, "card") as board:
        stream = board.stream(iter(images))
        next(stream)
        stream.close()
        for _ in range(100):
            card.pause(0)  # the rest of the results comes
        for _ in range(254):  # a lease each, in which nothing is sent
            with pytest.raises(errors.ImageError):
                next(board.stream(iter([np.zeros(3, np.uint8)])))
        assert (board.scores(images[:9]) == toy_scores(images[:9])).all()


class Racer(ToyCard):
    """It reads on and on, four buffers between two looks at how far it is."""

    def read(self, address):
        if address == CARD.dma_status:
            self.looks = getattr(self, "looks", 0) + 4
            return self.looks // len(self.tx) << 16 | self.looks % len(self.tx)
        return super().read(address)


def test_card_that_is_always_too_fast_is_an_error(bundle, plugged):
    card = plugged(Racer())
    board = Accelerator.open(bundle, "card", timeout=0.3)
    with pytest.raises(errors.LinkLostError, match="answers but takes and gives no data"):
        board.classify(toy_images(3))
    with pytest.raises(errors.LinkLostError, match="answers but takes and gives no data"):
        board.load_weights(toy_load(OTHER))
    board.close()
    assert not card._in_use


def test_no_header_is_seen_over_another_blocks_payload():
    """However far a card reads ahead: what it fetched is a block as it was meant, or none."""
    rings = np.zeros((2, 64, BLOCK_BYTES), np.uint8)

    class Card(ToyCard):
        at, looks, fetched = 0, 0, {}

        def read(self, address):
            if address != CARD.dma_status:
                return 0
            self.looks += 1
            for _ in range((0, 0, 0, 3, 0, 5, 0, 1)[self.looks % 8]):
                self.at += 1
                buffer = self.tx[(self.at + 1) % len(self.tx)]  # it is reading this one
                if buffer[12:16].any():
                    index, first = int(buffer[0]), int(buffer[16])
                    assert index == first, (index, first)
            return self.at // len(self.tx) << 16 | self.at % len(self.tx)

    card = Card()
    card.tx, card.rx = rings
    bus = PcieBus(card.opened(), CARD, 3)
    bus.begin()
    load = b"".join(bytes([k]) * (BLOCK_BYTES - 16) for k in range(30))
    assert bus.load(load, 0, first=True) == len(load)
    while card.looks < 400 and bus._blocks:
        assert bus.pending
    assert not bus._blocks


def test_reset_in_the_middle_of_a_load_is_recovered(bundle, plugged):
    card = plugged(ToyCard())
    images = toy_images(9)
    resets = iter([True])

    def progress(done, total):
        if total > 1000 and card._load == b"" and next(resets, False):
            card.power_cycle()

    with Accelerator.open(bundle, "card", timeout=1.0, progress=progress) as board:
        board.load_weights(toy_load(OTHER))
        assert (board.scores(images) == toy_scores(images, OTHER)).all()
        assert next(resets, None) is None and board.statistics.reconnects == 0
