# SPDX-License-Identifier: BSD-2-Clause
"""A core faster than the line leaves no bit of it idle, though the host hears 16 ms late."""

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.planner import make_plan
from xnorforge.sim.line_use import measure_line_use
from xnorforge.sim.link_faults import Subject
from xnorforge.sim.random_networks import dense_network, random_images

pytestmark = pytest.mark.timeout(300)

BAUD = 3_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    network = dense_network(np.random.default_rng(0), [96, 16, 10], "uint", 8)
    plan = make_plan(network, board="icebreaker", fps=5_000, baud=BAUD)
    return compile_bundle(network, plan, tmp_path_factory.mktemp("bundle") / "grey")


@pytest.fixture(scope="module")
def subject(bundle):
    return Subject.of(bundle, random_images(np.random.default_rng(1), bundle.network, 50))


def test_steady_stream_keeps_the_line_busy(bundle, subject):
    use = measure_line_use(bundle, subject, count=250)
    assert use.wrong == 0
    assert use.rx_busy >= 0.95 and use.payload >= 0.88
    assert use.baud == pytest.approx(BAUD)
    assert use.images_per_second == pytest.approx(use.rx_busy * use.payload * use.limit, rel=0.01)


def test_host_that_hears_too_late_leaves_the_line_idle(bundle, subject):
    # The window of 40 ms is on its way when the first answer comes after 100.
    use = measure_line_use(bundle, subject, count=250, latency_s=0.1)
    assert use.wrong == 0 and use.rx_busy < 0.6


def test_too_few_images_are_refused(bundle, subject):
    with pytest.raises(ValueError, match="too few to measure"):
        measure_line_use(bundle, subject, count=5)
