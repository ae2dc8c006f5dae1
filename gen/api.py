# SPDX-License-Identifier: BSD-2-Clause
"""The convenience methods of the Python API, so that a flow reads as one chain:

    net = xnorforge.gen.load("model.onnx")
    labels = net.predict(images)
    plan = net.plan(board="ulx3s-85f", fps=3000)
    bundle = plan.compile("build/net")
    bundle.verify(level="rtl", images=images)
    bundle.build()

Each method hands over to the module that does the work, imported when it is called: some of them
lie above this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from xnorforge.gen.build import BuildResult
    from xnorforge.gen.bundle import Bundle
    from xnorforge.gen.clock_search import ClockSearch
    from xnorforge.gen.exchange import ModelWeights
    from xnorforge.gen.layer_plan import LayerPlan, StreamPlan
    from xnorforge.gen.network import Network
    from xnorforge.gen.plan import Plan
    from xnorforge.gen.program import ProgramResult
    from xnorforge.gen.trace import Trace
    from xnorforge.sim.verify import VerifyReport

__all__ = ["BundleMethods", "NetworkMethods", "PlannedNetwork"]


class NetworkMethods:
    """What a `Network` can be asked to do; mixed into it."""

    def predict(self: Network, images: np.ndarray) -> np.ndarray:
        """Labels int64 (N,) of images (N, *shape), exactly as the hardware gives them."""
        from xnorforge.sim.reference import Executor

        return Executor(self).run(images).labels

    def scores(self: Network, images: np.ndarray) -> np.ndarray:
        """Integer scores (N, classes) of images, exactly as the hardware gives them."""
        from xnorforge.sim.reference import Executor

        return Executor(self).run(images).scores

    def plan(
        self: Network,
        *,
        board: str | None = None,
        device: str | None = None,
        fps: float | None = None,
        goal: str = "link",
        overrides: str | Path | Mapping[str, Any] | None = None,
        link: str = "uart",
        baud: int | None = None,
        clock_hz: float | None = None,
        pins: Mapping[str, str] | None = None,
        weights: str = "loadable",
        slots: int = 1,
        bus_clock_hz: float | None = None,
    ) -> PlannedNetwork:
        """Lay the network out; see `gen.planner.make_plan`."""
        from xnorforge.gen.planner import make_plan

        plan = make_plan(
            self,
            board=board,
            device=device,
            fps=fps,
            goal=goal,
            overrides=overrides,
            link=link,
            baud=baud,
            clock_hz=clock_hz,
            pins=pins,
            weights=weights,
            slots=slots,
            bus_clock_hz=bus_clock_hz,
        )
        return PlannedNetwork(self, plan)

    def trace(
        self: Network, images: np.ndarray, model: str | Path, *, layout: str = "auto"
    ) -> Trace:
        """Compare every layer's values with the source model's own runtime.

        model: the file that this network was loaded from. layout: as it was loaded with.
        """
        from xnorforge.gen.trace import trace

        return trace(
            model,
            images,
            input_scale=self.source.get("input_scale", 1 / 255),
            input_offset=self.source.get("input_offset", 0.0),
            pixel=self.input.pixel,
            layout=layout,
            network=self,
        )

    def inspect(self: Network) -> dict[str, Any]:
        """Layers, shapes, MACs, weight bits and thresholds, ready for JSON."""
        from xnorforge.gen.inspect import inspect

        return inspect(self)


@dataclass(frozen=True, eq=False)
class PlannedNetwork:
    """A network and the plan that was made for it."""

    network: Network
    plan: Plan

    @property
    def layers(self) -> tuple[LayerPlan | StreamPlan, ...]:
        return self.plan.layers

    @property
    def images_per_second(self) -> float:
        """Rate of the core, from the exact cycle model."""
        from xnorforge.gen.assembly import core_parts
        from xnorforge.gen.cycles import predict

        interval = predict(core_parts(self.network, self.plan)).interval_cycles
        return self.plan.clock_hz / float(interval)

    def at_clock(self, clock_hz: float) -> PlannedNetwork:
        """The same circuit at another clock; see `gen.plan.Plan.at_clock`."""
        return PlannedNetwork(self.network, self.plan.at_clock(clock_hz))

    def fastest_clock(self, **options: Any) -> ClockSearch:
        """Find the fastest clock that closes; options as `gen.clock_search.fastest_clock`.

        `planned.at_clock(planned.fastest_clock().clock_hz).compile("net").build()` uses it.
        """
        from xnorforge.gen.clock_search import fastest_clock

        return fastest_clock(self.network, self.plan, **options)

    def resources(self) -> dict[str, Any]:
        """Predicted resources; see `gen.resources.estimate`."""
        from xnorforge.gen.resources import estimate

        return estimate(self.network, self.plan)

    def compile(self, out: str | Path, progress: Callable[[str], None] | None = None) -> Bundle:
        """Write the bundle; see `gen.bundle.compile_bundle`."""
        from xnorforge.gen.bundle import compile_bundle

        return compile_bundle(self.network, self.plan, Path(out), progress=progress)


class BundleMethods:
    """What a `Bundle` can be asked to do; mixed into it."""

    def build(self: Bundle, **options: Any) -> BuildResult:
        """Make the bitstream; options as `gen.build.build`."""
        from xnorforge.gen.build import build

        return build(self, **options)

    def verify(
        self: Bundle,
        level: str = "rtl",
        *,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        **options: Any,
    ) -> VerifyReport:
        """Compare the bundle with its network; options as `sim.verify.verify`."""
        from xnorforge.sim.verify import verify

        return verify(self.path, level, images=images, labels=labels, **options)

    def model_weights(self: Bundle, model: str | Path, **options: Any) -> ModelWeights:
        """Another model of the same structure, for the circuit of this bundle; options as
        `gen.load`. See `gen.exchange.model_weights`."""
        from xnorforge.gen.exchange import model_weights

        return model_weights(model, self, **options)

    def program(self: Bundle, **options: Any) -> ProgramResult:
        """Load the built bitstream onto the board; options as `gen.program.program`."""
        from xnorforge.gen.program import program

        return program(self, **options)
