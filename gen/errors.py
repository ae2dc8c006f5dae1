# SPDX-License-Identifier: BSD-2-Clause
"""The exceptions a user can meet. Each message is one sentence: what, where, and what to do."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "BundleError",
    "ModelError",
    "OverfullError",
    "PlanError",
    "RouteError",
    "SiteError",
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


class SiteError(PlanError):
    """What does not go on one board or device.

    site: its name; the message is `before`, `site` and `after`.
    """

    def __init__(self, before: str, site: str, after: str) -> None:
        super().__init__(f"{before}{site}{after}")
        self.before, self.site, self.after = before, site, after

    def at(self, site: str) -> SiteError:
        """The same of another site, with which everything is the same but its name."""
        return SiteError(self.before, site, self.after)


class OverfullError(PlanError):
    """A design that takes more of some cell, once packed, than the device has."""


class BundleError(UserError):
    """A bundle that is missing, damaged, of another version or of another plan."""


class ToolError(UserError):
    """An external tool is missing, failed, or gave a result that breaks its contract.

    log: file with the tool's whole output, where there is one; the message names it. more: what
    the message ends with. brief: the message without the log.
    """

    def __init__(self, why: str, *, log: Path | None = None, more: str = "") -> None:
        where = "" if log is None else f" (whole log: {log})"
        super().__init__(f"{why}{where}{more}")
        self.why, self.log, self.more = why, log, more

    @property
    def brief(self) -> str:
        return f"{self.why}{self.more}"


class RouteError(ToolError):
    """Place and route ended by itself and found no place or no way: an answer about the design,
    which a tool that crashed or a full disk does not give."""
