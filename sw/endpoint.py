# SPDX-License-Identifier: BSD-2-Clause
"""Which link a bundle's board has, and what opens its port.

| link | port | |
|---|---|---|
| uart | serial path or URL, `socket://` of the virtual board | `sw.link` over `sw.transport` |
| axi | `socket://` of a simulated core | `sw.bus_link` over `sw.bus` |
| pcie | `/dev/litepcie0`, `socket://` of a simulated card | `sw.bus_link` over `sw.pcie` |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xnorforge.sw.bus import SocketBus
from xnorforge.sw.bus_link import BusLink
from xnorforge.sw.errors import PortError
from xnorforge.sw.link import HostLink
from xnorforge.sw.manifest import Manifest
from xnorforge.sw.pcie import open_card
from xnorforge.sw.transport import open_transport

__all__ = ["Endpoint", "endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """link: the host's end. connect: opens what it moves data through. where: for messages."""

    link: HostLink | BusLink
    connect: Callable[[], Any]
    where: str


def endpoint(manifest: Manifest, port: str, baud: int | None, timeout: float) -> Endpoint:
    """Of a bundle's board at a port. Raises PortError for a port that is of another link."""
    if manifest.link == "uart":
        rate = baud or manifest.baud
        return Endpoint(HostLink(), lambda: open_transport(port, rate), f"{port} at {rate} baud")
    if baud is not None:
        raise PortError(f"{manifest.path} has link {manifest.link}, which has no baud rate")
    link = BusLink(classes=manifest.classes, silence=timeout / 2)
    if (card := manifest.card) is not None:
        return Endpoint(link, lambda: open_card(port, card, manifest.classes), port)
    if not port.startswith("socket://"):
        raise PortError(
            f"{manifest.path} is a core for a design of your own, which moves its packets itself; "
            "this driver reaches a simulated one, at socket://host:port"
        )
    return Endpoint(link, lambda: SocketBus(port), port)
