# SPDX-License-Identifier: BSD-2-Clause
"""Fork: one stream to several consumers, each of which takes its beats in its own time.

     +--> queue of depths[0] --> o_0
i ---+
     +--> queue of depths[1] --> o_1
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.stream import Queue, QueueConfig

__all__ = ["Fork", "ForkConfig"]


@dataclass(frozen=True)
class ForkConfig:
    """Shape of a Fork.

    width: bits of a beat. depths: of each branch's queue, so how many beats this branch may lag
    behind the others. stores: kinds of the queues, as in `hw.stream`; () for registers.

    Raises
    ------
    TypeError, ValueError: less than two branches, one that is no queue.
    """

    width: int
    depths: tuple[int, ...]
    stores: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.depths) < 2:
            raise ValueError(f"A fork has at least two branches, not {len(self.depths)}")
        if self.stores and len(self.stores) != len(self.depths):
            raise ValueError(f"{len(self.stores)} stores for {len(self.depths)} branches")
        _ = self.queues

    @property
    def queues(self) -> tuple[QueueConfig, ...]:
        """Of each branch."""
        stores = self.stores or ("registers",) * len(self.depths)
        pairs = zip(self.depths, stores, strict=True)
        return tuple(QueueConfig(self.width, depth, store) for depth, store in pairs)

    @property
    def latency(self) -> tuple[int, ...]:
        """Cycles from a transfer on `i` to the earliest one of this beat, of each branch."""
        return tuple(queue.latency for queue in self.queues)

    @property
    def interval(self) -> int:
        """Cycles a beat at full speed."""
        return max(queue.interval for queue in self.queues)

    def reference(self, beats: list) -> list[list]:
        """What comes out of each branch."""
        return [list(beats) for _ in self.depths]


class Fork(wiring.Component):
    """Gives every beat to every branch.

    A beat is taken when all branches have room for it, so each consumer takes on its own and may
    lag as far as its queue is deep.

    Throughput: 1 beat a cycle with depths of 2 or more.  Latency: 1 cycle, 2 with a block RAM.
    Cost: the queues.  Back-pressure: stalls while any branch is full, never drops.

    Parameters
    ----------
    config : ForkConfig

    Members
    -------
    i : In(stream of width)
    o_0, o_1, ... : Out(stream of width)
    """

    def __init__(self, *, config: ForkConfig):
        self.config = config
        shape = unsigned(config.width)
        branches = range(len(config.depths))
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                **{f"o_{k}": Out(stream.Signature(shape)) for k in branches},
            }
        )

    @property
    def outputs(self) -> list:
        """The output streams."""
        return [getattr(self, f"o_{k}") for k in range(len(self.config.depths))]

    def elaborate(self, platform):
        m = Module()
        queues = []
        for k, (config, o) in enumerate(zip(self.config.queues, self.outputs, strict=True)):
            queue = Queue(shape=unsigned(config.width), depth=config.depth, store=config.store)
            m.submodules[f"queue_{k}"] = queue
            wiring.connect(m, queue.o, wiring.flipped(o))
            queues.append(queue)
        taken = self.i.valid & self.i.ready
        m.d.comb += self.i.ready.eq(Cat(queue.i.ready for queue in queues).all())
        for queue in queues:
            m.d.comb += [queue.i.payload.eq(self.i.payload), queue.i.valid.eq(taken)]
        return m
