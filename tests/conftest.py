# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures and the Hypothesis profile shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with third-party models and data sets; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("XNORFORGE_SHARED", default))
    if not path.is_dir():
        pytest.skip("no folder with third-party models; set XNORFORGE_SHARED")
    return path
