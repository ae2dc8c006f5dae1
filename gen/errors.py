# SPDX-License-Identifier: BSD-2-Clause
"""The exceptions a user can meet. Each message is one sentence: what, where, and what to do."""

__all__ = [
    "BundleError",
    "ModelError",
    "OverfullError",
    "PlanError",
    "RouteError",
    "ToolError",
    "UnsupportedOpError",
    "UserError",
]


class UserError(Exception):
    """Bad input or a missing tool: the command line prints the message and exits with 2."""


class ModelError(UserError):
    """A model file that cannot be read, or whose numbers cannot be lowered exactly."""


class UnsupportedOpError(ModelError):
    """A model op outside the integer network. Names the node, the op and what would be needed."""


class PlanError(UserError):
    """A network, target and device that do not go together."""


class OverfullError(PlanError):
    """A design that takes more of some cell, once packed, than the device has."""


class BundleError(UserError):
    """A bundle that is missing, damaged, of another version or of another plan."""


class ToolError(UserError):
    """An external tool is missing, failed, or gave a result that breaks its contract."""


class RouteError(ToolError):
    """Place and route ended by itself and found no place or no way: an answer about the design,
    which a tool that crashed or a full disk does not give."""
