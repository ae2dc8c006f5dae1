# SPDX-License-Identifier: BSD-2-Clause
"""The exceptions of the host side, which may not import `xnorforge.gen`.

Each message is one sentence: what, where, and what to do.
"""

__all__ = ["HostError", "ImageError", "TrainingError"]


class HostError(Exception):
    """Bad input or a missing thing: the command line prints the message and exits with 2."""


class ImageError(HostError):
    """An image file that cannot be read, or whose arrays are not the ones asked for."""


class TrainingError(HostError):
    """Training data, recipe or package missing or unusable."""
