# SPDX-License-Identifier: BSD-2-Clause
"""mnist-tfc on a simulated PCIe card: two models, registers that are not there, a reset."""

from __future__ import annotations

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.load import load
from xnorforge.gen.planner import make_plan
from xnorforge.sim.other_model import other_model
from xnorforge.sim.pcie_card import PcieCard
from xnorforge.sim.reference import Executor
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.images import load_images
from xnorforge.sw.protocol import MAGIC
from xnorforge.sw.shipped import shipped_images, shipped_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = 500


@pytest.mark.parametrize("board", ["xcu1525", "litefury"])
def test_two_models_strange_accesses_and_a_reset(board, tmp_path):
    network = load(shipped_model("mnist-tfc"))
    images, _ = load_images(shipped_images(), shape=network.input.value.shape)
    images = images[np.arange(COUNT) % len(images)]
    plan = make_plan(network, board=board, link="pcie", fps=1e6)
    bundle = compile_bundle(network, plan, tmp_path / "bundle")
    own = Executor(network).run(images)
    other = other_model(network, plan, images)
    window = bundle.manifest["link"]["registers"]
    card = PcieCard(
        [bundle.path / "accelerator.v"],
        generation=2,
        lanes=4,
        core_period_ps=2 * round(1e12 / plan.clock_hz / 2),
    )
    with (
        card,
        Accelerator.open(bundle.path, card.port, load="always", timeout=60.0) as accelerator,
    ):
        ask = accelerator._connection._transport._device._server.ask
        for result in (own, other.result):
            scores, labels = accelerator.results(images)
            np.testing.assert_array_equal(scores, result.scores)
            np.testing.assert_array_equal(labels, result.labels)
            accelerator.load_weights(other.load)

        # Nothing there: SLVERR inside the card, which LitePCIe answers with 0.
        assert ask("read", address=window + 4 * 200)["value"] == 0
        ask("write", address=window, value=7)  # read only
        assert ask("read", address=window)["value"] == MAGIC
        # One word whatever is asked for; a read of a part of it is malformed, as LitePCIe answers.
        word = ask("raw_read", address=window, length=4)
        assert (word["status"], word["data"]) == ("ok", MAGIC.to_bytes(4, "little").hex())
        for address, length in ((window + 1, 2), (window + 2, 4), (window - 2, 8), (1 << 20, 4)):
            assert ask("raw_read", address=address, length=length)["status"] != "gone"
        assert accelerator.registers()["magic"] == MAGIC
        np.testing.assert_array_equal(accelerator.scores(images[:50]), other.result.scores[:50])

        records = accelerator.stream(iter(images))
        found = [next(records).scores for _ in range(100)]
        ask("reset")
        found += [record.scores for record in records]
        np.testing.assert_array_equal(found, other.result.scores)
        assert accelerator.statistics.reconnects > 0
