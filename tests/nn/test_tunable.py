"""Tunable layers and the slider: the authors' outputs, a network at every strength, and what it folds to."""

import copy
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from tunable_nafnet import NAFNetConfig, TunableNAFNet

from relume.core.checkpoints import Header, write_checkpoint
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.errors import ConfigError, RelumeError
from relume.infer.engines.onnx_file import digest
from relume.models import zoo
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.models.super_resolution.espcn import ESPCN, ESPCNConfig
from relume.nn.network import Network
from relume.nn.slider import TunableNetwork, make_tunable, tuned
from relume.nn.surgery import apply_steps
from relume.nn.tunable import (
    TunableConv2d,
    TunableConvTranspose2d,
    TunableLayer,
    TunableLinear,
    TunableParameter,
)

SHARED = Path(__file__).resolve().parents[3] / "shared"
LAYERS = ["conv2d_linear", "conv2d_mlp", "conv_transpose", "linear_square", "ms_dense", "parameter"]
NETWORKS = ["ms_nafnet", "ms_nafnet_linear"]
SMALL = CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)


class Odd(Network):
    """Every kind of layer and padding that surgery has to know."""

    config = Config()

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding="same", padding_mode="replicate")
        self.grouped = nn.Conv2d(6, 6, 3, padding=(2, 1), dilation=(2, 1), groups=3, padding_mode="reflect")
        self.token = nn.Linear(6, 6, bias=False)
        self.again = self.grouped
        self.up = nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1, groups=3)

    @property
    def contract(self):
        return Contract(scale=2, channels=3, halo=7)

    def forward(self, x):
        x = self.again(self.grouped(self.first(x)).relu()).relu()
        return self.up(self.token(x.movedim(1, -1)).movedim(-1, 1))


def case(name):
    path = SHARED / "golden" / "tunable" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip("the authors' outputs (shared/golden) are not at hand")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        kwargs = json.loads(file.metadata()["kwargs"])
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    return kwargs, state, tensors


def layer_of(kwargs, state):
    kind, values = kwargs.pop("_cls"), dict(kwargs)
    how = {
        "parameters": values.pop("num_params"),
        "expand": values.pop("expand_params", 1),
        "mode": values.pop("mode"),
    }
    match kind:
        case "TunableConv2d":
            return TunableConv2d(nn.Conv2d(**values), **how), state
        case "TunableConvTranspose2d":
            return TunableConvTranspose2d(nn.ConvTranspose2d(**values), **how), state
        case "TunableLinear":
            return TunableLinear(nn.Linear(**values), **how), {**state, "weight": state["weight"].mT}
        case "TunableDense":
            return TunableLinear(nn.Linear(values["in_channels"], values["out_channels"]), **how), state
    return TunableParameter(torch.rand(values["_shape"]), **how), state


@pytest.mark.parametrize("name", LAYERS)
def test_layers_reproduce_the_authors_output(name):
    kwargs, state, tensors = case(name)
    layer, state = layer_of(kwargs, state)
    layer.load_state_dict(state)
    inputs = [tensors[key] for key in ("input.x", "input.px") if key in tensors]
    with torch.no_grad():
        whole = layer(*inputs)
        assert whole.shape == tensors["output"].shape
        assert (whole - tensors["output"]).abs().max() <= 1e-5
        # Each picture by itself, with the plain layer of its own parameters.
        for i, parameters in enumerate(inputs[-1]):
            plain = layer.merged(parameters[None])
            alone = plain(*(x[i : i + 1] for x in inputs[:-1]))
            assert (alone - tensors["output"][i : i + 1]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_reproduces_the_authors_output(name):
    kwargs, state, tensors = case(name)
    config = NAFNetConfig(
        width=kwargs["width"], encoders=kwargs["enc_blk_nums"], middle=kwargs["middle_blk_num"],
        decoders=kwargs["dec_blk_nums"], parameters=kwargs["num_params"], mode=kwargs["mode"],
    )  # fmt: skip
    network = TunableNAFNet(config)
    network.load_state_dict(state)
    for x, parameters, expected in zip(
        tensors["input.x"], tensors["input.px"], tensors["output"], strict=True
    ):
        with torch.no_grad(), tuned(network, parameters):
            assert (network(x[None])[0] - expected).abs().max() <= 1e-4
            assert (network.folded()(x[None])[0] - expected).abs().max() <= 1e-4


def shaken(network):
    """Give every kernel and map values of their own, as a training does."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn_like(value) * 0.1 * value.abs().mean().clamp(min=0.1))
    return network.eval()


def cfsr(*steps):
    torch.manual_seed(0)
    return apply_steps(CFSR(SMALL), steps)


MAKERS = {
    "odd": Odd,
    "cfsr training form": cfsr,
    "cfsr merged": lambda: cfsr("reparameterise"),
    "fsrcnn": lambda: zoo.build(zoo.variant("fsrcnn-x4").config, system="fsrcnn"),
    "carn": lambda: zoo.build(zoo.variant("carn-m-x2").config, system="carn"),
    "routed": lambda: zoo.build(zoo.variant("cfsr-routed-x4").config, system="routed"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_surgery_changes_nothing_until_it_is_trained(make):
    plain = make().eval()
    network = copy.deepcopy(plain)
    make_tunable(network)
    assert isinstance(network, TunableNetwork)
    assert isinstance(network, type(plain))
    assert network.contract.strength
    assert network.contract.halo == plain.contract.halo
    x = torch.rand(2, 3, 14, 11)
    with torch.no_grad():
        for network.strength in (None, 0.0, 0.3, 1.0):
            assert (network(x) - plain(x)).abs().max() <= 1e-5


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_folded_is_the_network_at_its_strength(make):
    network = make()
    make_tunable(network)
    shaken(network)
    x = torch.rand(1, 3, 14, 11)
    seen = []
    with torch.no_grad():
        for network.strength in (0.0, 0.35, 1.0):
            output = network(x)
            folded = network.folded()
            assert not isinstance(folded, TunableNetwork)
            assert (folded(x) - output).abs().max() <= 1e-5 * max(1.0, output.abs().max().item())
            assert not any(isinstance(part, TunableLayer) for part in folded.modules())
            seen.append(output)
    assert (seen[0] - seen[2]).abs().max() > 1e-3
    assert (seen[0] - seen[1]).abs().max() > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1))
def test_any_strength_folds(strength):
    network = Odd()
    make_tunable(network)
    shaken(network).strength = strength
    x = torch.rand(1, 3, 8, 9)
    with torch.no_grad():
        assert (network.folded()(x) - network(x)).abs().max() <= 1e-5


def test_a_layer_made_twice_use_of_stays_one():
    network = Odd()
    make_tunable(network)
    assert network.again is network.grouped
    assert isinstance(network.fixed().again, nn.Conv2d)


def test_it_is_saved_with_its_surgery_and_loaded_again(tmp_path):
    network = shaken(cfsr("tunable"))
    assert network.steps == ("tunable",)
    header = Header(model="cfsr", variant=None, config=SMALL.model_dump(mode="json"), steps=network.steps)
    path = tmp_path / "net.safetensors"
    write_checkpoint(path, network.state_dict(), header)
    loaded, _ = zoo.load(path)
    assert loaded.contract.strength
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        for strength in (0.0, 0.8):
            network.strength = loaded.strength = strength
            assert torch.equal(loaded(x), network(x))


def test_branches_can_be_merged_afterwards():
    network = shaken(cfsr("tunable"))
    x = torch.rand(1, 3, 9, 9)
    network.strength = 0.7
    with torch.no_grad():
        before = network(x)
        merged = apply_steps(network, ["reparameterise"])
        assert merged.steps == ("tunable", "reparameterise")
        assert (merged(x) - before).abs().max() <= 1e-5
        assert (merged.folded()(x) - before).abs().max() <= 1e-5


def test_a_plain_start_is_in_all_kernels():
    source = shaken(cfsr())
    network = shaken(cfsr("tunable"))
    assert network.start_from(source) == []
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        for network.strength in (0.0, 0.5, 1.0):
            assert (network(x) - source(x)).abs().max() <= 1e-5


def test_a_tunable_start_is_taken_as_it_is():
    source, network = shaken(cfsr("tunable")), cfsr("tunable").eval()
    assert network.start_from(source) == []
    network.strength = source.strength = 0.9
    x = torch.rand(1, 3, 9, 9)
    assert torch.equal(network(x), source(x))


def test_a_start_of_another_scale_respreads_what_it_can():
    torch.manual_seed(0)
    source = CFSR(SMALL.model_copy(update={"scale": 3})).eval()
    plain = cfsr()
    network = apply_steps(copy.deepcopy(plain), ["tunable"]).eval()
    assert network.start_from(source) == plain.eval().start_from(source)
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert (network(x) - plain(x)).abs().max() <= 1e-5


def test_what_a_plain_start_leaves_is_named_with_all_kernels_and_maps():
    network = cfsr("tunable")
    own = {name: value.clone() for name, value in network.named_parameters()}
    assert network.start_from(ESPCN(ESPCNConfig(scale=2))) == list(own)
    assert all(torch.equal(value, own[name]) for name, value in network.named_parameters())
    source = cfsr()
    source.shallow = nn.Conv2d(3, 7, 5)
    source.fuse = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    left = [f"shallow.{name}" for name in ("weight", "bias", "mlp.weight", "mlp.bias")]
    assert network.start_from(source) == [*left, "fuse.bias"]


def test_a_tunable_tensor_takes_nothing_from_a_plain_network():
    class Scaled(Odd):
        def __init__(self):
            super().__init__()
            self.scale = TunableParameter(torch.ones(1))

    network = Scaled()
    make_tunable(network)
    assert network.start_from(Odd()) == ["scale.data", "scale.mlp.weight", "scale.mlp.bias"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_runs_in_other_types(dtype):
    network = shaken(cfsr("tunable"))
    network.strength = 0.3
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert (network(x).float() - expected).abs().max() <= 0.05 * expected.abs().max()
        other = network.to(dtype)(x.to(dtype))
        assert other.dtype == dtype
        assert (other.float() - expected).abs().max() <= 0.05 * expected.abs().max()


def test_copies_have_sliders_of_their_own():
    network = shaken(cfsr("tunable"))
    other = copy.deepcopy(network)
    network.strength, other.strength = 0.0, 1.0
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        first, second = network(x), other(x)
        assert not torch.allclose(first, second)
        assert torch.equal(network(x), first)


def test_exports_of_different_strengths_have_different_names():
    network = shaken(cfsr("reparameterise", "tunable"))
    names = set()
    for network.strength in (None, 0.0, 1.0):
        names.add(digest(network))
        assert digest(network) == digest(copy.deepcopy(network))
    assert len(names) == 3


def test_gradients_reach_every_kernel_and_map():
    network = shaken(cfsr("tunable")).train()
    network.strength = 0.4
    network(torch.rand(1, 3, 9, 9)).square().mean().backward()
    # Scaled by 1e-6 as they are new, some are small, but there.
    assert all(value.grad is not None for value in network.parameters())
    assert network.shallow.weight.grad.abs().amax((2, 3, 4, 5)).min() > 0
    assert network.shallow.mlp.weight.grad.abs().min() > 0


def test_what_cannot_be_is_told():
    network = cfsr("tunable")
    with pytest.raises(RelumeError, match="tunable already"):
        make_tunable(network)
    with pytest.raises(TypeError, match="not a Conv2d"):
        make_tunable(nn.Conv2d(1, 1, 1))
    with pytest.raises(ConfigError, match="tunable between 2 aims, not 3"), tuned(network, torch.ones(3)):
        pass
    with pytest.raises(ConfigError, match="no slider"), tuned(cfsr(), torch.ones(2)):
        pass
    layer = TunableConv2d(nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="needs parameters B 2, got none"):
        layer(torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="parameters for 2 pictures do not fit a batch of 3"):
        layer(torch.rand(3, 3, 4, 4), torch.rand(2, 2))
