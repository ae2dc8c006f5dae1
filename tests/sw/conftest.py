# SPDX-License-Identifier: BSD-2-Clause
"""What tests of the driver share."""

import pytest

from xnorforge.sim.toy_board import toy_bundle


@pytest.fixture
def bundle(tmp_path):
    """The bundle of `toy_device`, as far as the driver reads one."""
    return toy_bundle(tmp_path / "bundle")
