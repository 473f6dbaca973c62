"""What is NAFNet's, Restormer's and HINet's own: forms of checkpoints, windows of means, refused settings."""

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file

from relume.infer.engines import engines
from relume.infer.engines.base import Place
from relume.models import zoo
from relume.models.restoration.hinet import HINetConfig
from relume.models.restoration.nafnet import NAFNet, NAFNetConfig
from relume.models.restoration.restormer import Restormer, RestormerConfig, from_official

DCPT = ("nafnet", "restormer")


@pytest.mark.parametrize("name", DCPT)
@torch.no_grad()
def test_the_forms_of_dcpts_code_are_recognised(name, shared):
    path = shared / "golden" / "dcpt" / f"{name}.safetensors"
    case = load_file(path)
    state = {key.removeprefix("state/"): value for key, value in case.items() if key.startswith("state/")}
    system, official = zoo.recognise(state, path)
    assert system == name
    network = zoo.build(official.config, system=system).eval()
    network.load_state_dict(dict(official.state))
    assert (network(case["input"]) - case["output"]).abs().max() <= 1e-5
    with safe_open(path, "pt") as file:
        arguments = json.loads(file.metadata()["kwargs"])
    if name == "restormer":
        assert official.config.ratio == arguments["ffn_expansion_factor"]


@torch.no_grad()
def test_means_are_local_only_beyond_one_and_a_half_patches():
    torch.manual_seed(0)
    config = NAFNetConfig(width=4, encoders=(1, 1), decoders=(1, 1), patch=(16, 16))
    local, plain = NAFNet(config).eval(), NAFNet(config.model_copy(update={"patch": None})).eval()
    for value in local.parameters():
        value.add_(0.2 * torch.randn_like(value))
    plain.load_state_dict(local.state_dict())
    small, large = torch.rand(1, 3, 24, 21), torch.rand(1, 3, 24, 33)
    assert torch.equal(local(small), plain(small))
    assert (local(large) - plain(large)).abs().max() > 1e-3


@pytest.mark.parametrize(("levels", "sizes"), [(1, [(1, 1), (2, 2)]), (5, [(33, 41)])])
@torch.no_grad()
def test_onnx_continues_tiny_sides_as_pytorch_does(levels, sizes):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    depths = (1,) * levels
    network = NAFNet(NAFNetConfig(width=2, encoders=depths, decoders=depths, patch=None)).eval()
    for value in network.parameters():
        value.add_(0.1 * torch.randn_like(value))
    engine = engines()["onnxruntime"](network, Place())
    for size in sizes:
        x = torch.rand(1, 3, *size)
        assert (engine(x) - network(x)).abs().max() <= 1e-5


@torch.no_grad()
def test_fresh_networks_give_back_the_input():
    x = torch.rand(1, 3, 13, 10)
    network = NAFNet(NAFNetConfig(width=4, encoders=(1,), decoders=(1,))).eval()
    network.ending.weight.zero_()
    network.ending.bias.zero_()
    assert torch.equal(network(x), x)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 2.66, 1.333])
def test_the_ratio_is_read_off_the_hidden_widths(ratio):
    config = RestormerConfig(width=48, depths=(1, 1, 1, 1), refinement=1, ratio=ratio)
    ours = Restormer(config).state_dict()
    official = from_official(authors_state(ours, halvings=3))
    assert official is not None
    assert official.shown == ("heads.combined",)  # of one head, none can be
    # Another number may give the same widths.
    assert official.config.ratio == pytest.approx(ratio, abs=3e-3)
    assert official.config == config.model_copy(update={"ratio": official.config.ratio})
    assert {key: value.shape for key, value in official.state.items()} == {
        key: value.shape for key, value in ours.items()
    }


def authors_state(state, *, halvings):
    """Restormer's state under its authors' names."""
    theirs = {}
    for key, value in state.items():
        head, *rest = key.split(".")
        if head in ("encoders", "downs", "ups", "fuses", "decoders"):
            index, rest = int(rest[0]), rest[1:]
            head = {
                "encoders": f"encoder_level{index + 1}",
                "decoders": f"decoder_level{halvings - index}",
                "downs": f"down{index + 1}_{index + 2}.body",
                "ups": f"up{halvings + 1 - index}_{halvings - index}.body",
                "fuses": f"reduce_chan_level{halvings - index}",
            }[head]
        key = ".".join([head, *rest])
        for ours, name in (
            ("intro.", "patch_embed.proj."), ("middle.", "latent."), ("refine.", "refinement."),
            ("ending.", "output."), (".channel_norm.", ".norm2.body."), (".norm.", ".norm1.body."),
            ("attention.expand", "attn.qkv"), ("attention.spread", "attn.qkv_dwconv"),
            ("attention.project", "attn.project_out"), ("attention.temperature", "attn.temperature"),
            ("feed_forward.expand", "ffn.project_in"), ("feed_forward.spread", "ffn.dwconv"),
            ("feed_forward.project", "ffn.project_out"),
        ):  # fmt: skip
            key = key.replace(ours, name)
        theirs[key] = value
    return theirs


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (NAFNetConfig, {"encoders": (1, 1), "decoders": (1,)}),
        (NAFNetConfig, {"patch": (0, 64)}),
        (NAFNetConfig, {"middle": 0}),
        (RestormerConfig, {"attention_heads": (1, 2)}),
        (RestormerConfig, {"width": 10, "attention_heads": (1, 2, 4, 3)}),
        (HINetConfig, {"normed": (5,)}),
        (HINetConfig, {"width": 5}),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, wrong):
    with pytest.raises(ValidationError):
        config(**wrong)
