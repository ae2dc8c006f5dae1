# SPDX-License-Identifier: BSD-2-Clause
"""The core behind a shell: its instance, and the feed that makes image beats of the shell's bytes.

    shell --image--> feed --> core --result--> shell;   config, registers, flush: straight

The core is instantiated by its Verilog name, so that `accelerator.v` holds it as a module of its
own with readable ports.
"""

from amaranth import *

from xnorforge.gen.assembly import CoreParts
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.image_feed import ImageFeed, ImageFeedConfig

__all__ = ["CORE", "add_core"]

CORE = "xnorforge_core"
"""The core's Verilog module."""


def add_core(m: Module, shell, network: Network, plan: Plan, parts: CoreParts) -> None:
    """Put feed and core behind a shell with the ports of `hw.link_shell.core_ports`."""
    value = network.input.value
    m.submodules.feed = feed = ImageFeed(
        config=ImageFeedConfig(
            elements=value.size,
            element_bits=value.bits,
            bytes_in=len(shell.image.payload) // 8,
            lanes=plan.lanes,
            slots=plan.slots,
        )
    )
    score, label = Signal(signed(parts.head.score_bits)), Signal(16)
    last, register_data = Signal(), Signal(32)
    two = {}
    if plan.slots > 1:
        m.d.comb += feed.slot.eq(shell.image_slot)
        two = {"i_image_slot": feed.o_slot, "i_config_slot": shell.config_slot}
    m.submodules.core = Instance(
        CORE,
        i_clk=ClockSignal(),
        i_rst=ResetSignal(),
        i_image_data=Value.cast(feed.o.payload),
        i_image_valid=feed.o.valid,
        o_image_ready=feed.o.ready,
        o_result_score=score,
        o_result_label=label,
        o_result_last=last,
        o_result_valid=shell.result.valid,
        i_result_ready=shell.result.ready,
        i_config_data=shell.config.payload.data,
        i_config_first=shell.config.payload.first,
        i_config_valid=shell.config.valid,
        o_config_ready=shell.config.ready,
        i_register_address=shell.register_address,
        o_register_data=register_data,
        i_flush=shell.flush,
        **two,
    )
    m.d.comb += [
        feed.i.payload.eq(shell.image.payload),
        feed.i.valid.eq(shell.image.valid),
        shell.image.ready.eq(feed.i.ready),
        feed.flush.eq(shell.flush),
        shell.result.payload.score.eq(score),
        shell.result.payload.label.eq(label),
        shell.result.payload.last.eq(last),
        shell.register_data.eq(register_data),
    ]
