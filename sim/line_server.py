# SPDX-License-Identifier: BSD-2-Clause
"""Questions and answers, a line of JSON each, between the driver and a cocotb bench, in lock-step.

Runs inside the simulator, whose time stands still while nothing is asked. One client at a time;
another one waits until it has gone. A failed question is answered {"error": why}.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

__all__ = ["serve_lines"]

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve_lines(
    folder: Path,
    greet: Callable[[], Awaitable[dict[str, Any]]],
    answer: Answer,
    leave: Callable[[], Awaitable[None]],
) -> None:
    """Serve clients until the process that started the bench has gone.

    folder: the job's; job.json has the `tcp_port` wanted, its number is left in `port`. greet: what
    a client is told first. leave: called when one has gone.
    """
    wanted = json.loads((folder / "job.json").read_text()).get("tcp_port", 0)
    with socket.create_server(("127.0.0.1", wanted)) as listener:
        file = folder / "port"
        file.with_suffix(".new").write_text(str(listener.getsockname()[1]))
        file.with_suffix(".new").rename(file)
        while _readable(listener):
            client, _ = listener.accept()
            with client:
                try:
                    await _talk(client, greet, answer)
                except OSError:
                    pass  # the client has gone
                finally:
                    await leave()


async def _talk(
    client: socket.socket, greet: Callable[[], Awaitable[dict[str, Any]]], answer: Answer
) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(json.dumps(await greet()).encode() + b"\n")
    rest = b""
    while _readable(client):
        data = client.recv(1 << 20)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            try:
                found = await answer(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            client.sendall(json.dumps(found).encode() + b"\n")


def _readable(end: socket.socket) -> bool:
    """Wait for data; False where the process that started the bench has gone."""
    return sys.stdin not in select.select([end, sys.stdin], [], [])[0]
