# SPDX-License-Identifier: BSD-2-Clause
"""Another model for a circuit that is there: the load it gives, and what is refused and why."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from xnorforge.gen import load
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import BundleError, ModelError
from xnorforge.gen.exchange import exchange, model_weights
from xnorforge.gen.layers import Conv, WeightType
from xnorforge.gen.network import Head
from xnorforge.gen.planner import make_plan
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.random_networks import dense_network, random_network
from xnorforge.sw.cli import run
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import WeightsError
from xnorforge.sw.manifest import Ranking


def bundle_of(network, path, **options):
    plan = make_plan(network, device="ecp5-25f", goal="min", **options)
    return compile_bundle(network, plan, path)


def with_layer(network, index, **changes):
    layers = list(network.layers)
    layers[index] = dataclasses.replace(layers[index], **changes)
    return dataclasses.replace(network, layers=tuple(layers))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    network = dense_network(np.random.default_rng(1), [20, 12, 9, 4])
    return bundle_of(network, tmp_path_factory.mktemp("exchange") / "net")


def save_model(chain, path, seed, *, sizes=(20, 12, 9, 4), centre=1.0):
    """A dense ONNX model of random numbers; its input bits are `2 * x >= centre`."""
    rng = np.random.default_rng(seed)
    model = chain([1, sizes[0]]).node("Mul", chain.X, 2.0).node("Sub", chain.X, centre).bipolar()
    for index, (columns, rows) in enumerate(itertools.pairwise(sizes)):
        model.node("MatMul", chain.X, rng.choice([-1.0, 1.0], (columns, rows)))
        if index < len(sizes) - 2:
            numbers = (rng.uniform(0.5, 2, rows), *rng.normal(0, 2, (2, rows)))
            model.batchnorm(*numbers, rng.uniform(0.5, 2, rows)).bipolar()
    return model.save(path)


def test_own_network_gives_the_bundles_own_weights(bundle):
    found = exchange(bundle.network, bundle)
    assert found.load == (bundle.path / "weights.bin").read_bytes()
    assert found.input == bundle.manifest["input"]
    assert found.output.items() <= bundle.manifest["output"].items()


def test_model_file_gives_what_compiling_it_would(bundle, chain, tmp_path):
    for seed, centre in ((1, 1.0), (2, 0.5)):
        path = save_model(chain, tmp_path / f"{seed}.onnx", seed, centre=centre)
        again = compile_bundle(load(path), bundle.plan, tmp_path / f"net{seed}")
        found = bundle.model_weights(path)
        assert found.load == (again.path / "weights.bin").read_bytes()
        assert found.input["threshold"] == again.manifest["input"]["threshold"]
        assert again.manifest["plan_hash"] == bundle.manifest["plan_hash"]


def test_model_file_is_read_with_the_bundles_own_scaling(chain, tmp_path):
    path = save_model(chain, tmp_path / "model.onnx", 3)
    own = bundle_of(load(path, input_scale=1 / 100, input_offset=0.1), tmp_path / "net")
    found = own.model_weights(path)
    assert found.input == own.manifest["input"]
    assert own.model_weights(path, input_offset=0.3).input["threshold"] != found.input["threshold"]


@pytest.mark.parametrize("seed", range(6))
def test_networks_of_every_kind_of_layer_can_be_exchanged(seed, tmp_path):
    rng = np.random.default_rng(seed)
    bundle = bundle_of(random_network(rng), tmp_path / "net")
    layers = []
    for layer in bundle.network.layers:
        changes = {}
        if hasattr(layer, "weights"):
            changes["weights"] = np.ascontiguousarray(layer.weights[::-1])
        layers.append(dataclasses.replace(layer, name=f"other_{layer.name}", **changes))
    names = {layer.name: f"other_{layer.name}" for layer in bundle.network.layers}
    layers = [
        dataclasses.replace(layer, inputs=tuple(names.get(name, name) for name in layer.inputs))
        for layer in layers
    ]
    other = dataclasses.replace(bundle.network, layers=tuple(layers))
    found = exchange(other, bundle)
    assert len(found.load) == len((bundle.path / "weights.bin").read_bytes())
    own = (bundle.path / "weights.bin").read_bytes()
    reversible = any(
        (layer.weights != layer.weights[::-1]).any()
        for layer in bundle.network.layers
        if hasattr(layer, "weights")
    )
    assert (found.load != own) == reversible


def difference(network, bundle):
    with pytest.raises(ModelError) as error:
        exchange(network, bundle, name="other.onnx")
    text = str(error.value)
    start = f"other.onnx does not go on the circuit of {bundle.path}: "
    end = "; compile and build it instead"
    assert text.startswith(start) and text.endswith(end)
    return text[len(start) : -len(end)]


def test_first_layer_that_differs_is_named_with_both_values(bundle):
    rng = np.random.default_rng(2)
    for sizes, words in (
        ([24, 12, 9, 4], "its input is bit 24, not bit 20"),
        ([20, 12, 4], "it has 2 layers, not 3"),
        ([20, 12, 10, 4], "layer 'dense1' has rows 10, not 9"),
        ([20, 12, 9, 5], "layer 'dense2' has rows 5, not 4"),
    ):
        assert difference(dense_network(rng, sizes), bundle) == words
    own = bundle.network
    numbers = [own.layers[0].thresholds] * 3
    assert "'dense0' has thresholds a channel 3, not 1" in difference(
        dense_with_input(own, thresholds=np.stack(numbers)), bundle
    )
    head = Head("last")
    assert difference(dataclasses.replace(own, head=head), bundle) == (
        "its head has tie 'last', not 'first'"
    )
    scaled = Head("first", np.ones(4, np.int64), np.zeros(4, np.int64))
    assert difference(dataclasses.replace(own, head=scaled), bundle) == (
        "its classes have scales of their own, unlike the circuit's"
    )


def dense_with_input(network, **changes):
    """The first layer changed, and the second made to take what it then gives."""
    first = dataclasses.replace(network.layers[0], **changes)
    second = dataclasses.replace(network.layers[1], source=first.output)
    return dataclasses.replace(network, layers=(first, second, *network.layers[2:]))


def test_weights_of_another_kind_are_named(bundle):
    wide = bundle.network.layers[2].weights * 3
    other = with_layer(bundle.network, 2, weights=wide, weight_type=WeightType("odd", 2))
    assert difference(other, bundle) == "layer 'dense2' has weights of kind odd2, not odd1"


def test_padding_is_structure(tmp_path):
    networks = (random_network(np.random.default_rng(seed)) for seed in range(99))
    network, index = next(
        (network, index)
        for network in networks
        for index, layer in enumerate(network.layers)
        if isinstance(layer, Conv) and layer.window.padded
    )
    bundle = bundle_of(network, tmp_path / "net")
    layer = network.layers[index]
    value = layer.source.low if layer.pad_value != layer.source.low else layer.source.high
    other = with_layer(network, index, pad_value=value)
    assert difference(other, bundle) == (
        f"layer {layer.name!r} has padding {value}, not {layer.pad_value}"
    )


def test_constant_weights_are_part_of_the_circuit(tmp_path):
    network = dense_network(np.random.default_rng(5), [10, 6, 3])
    bundle = bundle_of(network, tmp_path / "net", weights="constant")
    (name,) = [layer.name for layer in bundle.plan.layers[:1] if layer.weight_store == "const"]
    other = with_layer(network, 0, weights=-network.layers[0].weights)
    assert difference(other, bundle) == (
        f"the weights of layer {name!r} are logic in this circuit and cannot be exchanged"
    )
    assert exchange(network, bundle).load == (bundle.path / "weights.bin").read_bytes()


def test_what_is_no_bundle_or_no_model_is_refused(bundle, chain, tmp_path):
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        model_weights(save_model(chain, tmp_path / "m.onnx", 1), tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        model_weights(tmp_path / "broken.onnx", bundle)


@pytest.mark.timeout(300)
def test_two_models_alternate_on_the_virtual_board_without_a_rebuild(chain, tmp_path, capsys):
    """In Python and on the command line; their input bits have different thresholds."""
    paths = [
        save_model(chain, tmp_path / f"{k}.onnx", k, sizes=(16, 10, 4), centre=0.6 + 0.8 * k)
        for k in range(2)
    ]
    networks = [load(path) for path in paths]
    own = str(networks[0].plan(board="icebreaker").compile(tmp_path / "net").path)
    images = np.random.default_rng(9).integers(0, 256, (40, 16)).astype(np.uint8)
    wanted = [network.scores(images) for network in networks]
    assert (wanted[0] != wanted[1]).any()
    np.save(tmp_path / "images.npy", images)
    larger = save_model(chain, tmp_path / "larger.onnx", 3, sizes=(16, 11, 4))
    with VirtualBoard(own) as server:
        with Accelerator.open(own, server.socket) as board:
            for turn in (1, 0, 1, 0):
                board.load_weights(paths[turn])
                assert (board.scores(images) == wanted[turn]).all()
            with pytest.raises(WeightsError, match=r"larger\.onnx does not go .*rows 11, not 10"):
                board.load_weights(larger)
            assert (board.scores(images) == wanted[0]).all()
        port = ["--port", server.socket]
        command = ["load", own, str(paths[1]), *port]
        assert run([*command, "--json"]) == 0
        digest = json.loads(capsys.readouterr().out)["weights_digest"]
        assert run(command) == 0
        assert f"1: weights {digest:08x} loaded and read back" in capsys.readouterr().out
        assert run([*command, "--input-scale", "0.004"]) == 0
        capsys.readouterr()
        command = ["infer", own, str(tmp_path / "images.npy"), *port, "--top", "2"]
        for turn, more in ((1, ["--weights", str(paths[1])]), (0, [])):
            assert run([*command, *more, "--json"]) == 0
            found = json.loads(capsys.readouterr().out)
            assert found["scores"] == wanted[turn].tolist()
            assert found["top"] == Ranking().top(wanted[turn], 2).tolist()
