# SPDX-License-Identifier: BSD-2-Clause
"""The exceptions of the host side, which may not import `xnorforge.gen`.

Each message is one sentence: what, where, and what to do.
"""

__all__ = [
    "AcceleratorError",
    "BundleMismatchError",
    "DeviceFaultError",
    "ForeignDeviceError",
    "HostError",
    "ImageError",
    "LinkLostError",
    "ManifestError",
    "PortError",
    "SilentDeviceError",
    "TrainingError",
    "WeightsError",
]


class HostError(Exception):
    """Bad input or a missing thing: the command line prints the message and exits with 2."""


class ImageError(HostError):
    """An image file that cannot be read, or whose arrays are not the ones asked for."""


class TrainingError(HostError):
    """Training data, recipe or package missing or unusable."""


class AcceleratorError(HostError):
    """Anything that keeps a board from being used."""


class ManifestError(AcceleratorError):
    """A bundle whose manifest or weights cannot be read."""


class PortError(AcceleratorError):
    """A port that is absent, in use, not permitted, or gone."""


class SilentDeviceError(AcceleratorError):
    """Nothing answers on the port."""


class ForeignDeviceError(AcceleratorError):
    """What answers on the port is not an accelerator, or speaks another protocol version."""


class BundleMismatchError(AcceleratorError):
    """The board holds another plan or other weights than the bundle."""


class WeightsError(AcceleratorError):
    """Weights that are damaged, or that the board did not take."""


class LinkLostError(AcceleratorError):
    """The board took or gave nothing for too long."""


class DeviceFaultError(AcceleratorError):
    """The board broke its contract."""
