"""Pre-training by classification: whose gradient goes where, what is refused, and that it learns."""

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from relume.core.errors import ConfigError, UnknownNameError
from relume.models.restoration.nafnet import NAFNet, NAFNetConfig
from relume.nn.encoders.base import tapped
from relume.train.objectives.base import Partnered
from relume.train.objectives.dcpt import DCPTConfig
from relume.train.settings import LoopConfig, OptimiserConfig, ScheduleConfig
from relume.train.stepping import Stepper
from relume.train.strategies.dcpt import focal_loss, right_share

LAYERS = {"decoders.1": 4, "decoders.0": 8}


def network():
    torch.manual_seed(0)
    net = NAFNet(NAFNetConfig(width=4, encoders=(1, 1), decoders=(1, 1)))
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return net.train()


def objective(**more):
    torch.manual_seed(1)
    values = {"layers": LAYERS, "kinds": 2, "blocks": 1, **more}
    return DCPTConfig.parse(values, where="objective").build()


def batch(seed=0, count=8):
    """Clean pictures are smooth; kind 0 is dark, kind 1 is noisy."""
    generator = torch.Generator().manual_seed(seed)
    target = F.interpolate(torch.rand(count, 3, 4, 4, generator=generator), (16, 16), mode="bilinear")
    kind = torch.arange(count) % 2
    noisy = target + 0.3 * torch.randn(target.shape, generator=generator)
    return {
        "target": target,
        "input": torch.where(kind.view(-1, 1, 1, 1) == 0, 0.2 * target, noisy),
        "kind": kind,
    }


@settings(max_examples=30, deadline=None)
@given(focus=st.floats(0, 5), seed=st.integers(0, 1000))
def test_focal_loss_is_its_equation(focus, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    kinds = torch.randint(4, (6,), generator=generator)
    p = torch.stack([row.exp()[kind] / row.exp().sum() for row, kind in zip(logits, kinds, strict=True)])
    expected = (-((1 - p) ** focus) * p.log()).mean()
    assert focal_loss(logits, kinds, focus=focus).item() == pytest.approx(expected.item(), rel=1e-9)


def test_without_focus_it_is_cross_entropy_and_certainty_is_no_nan():
    logits, kinds = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.allclose(focal_loss(logits, kinds), F.cross_entropy(logits, kinds))
    sure = torch.tensor([[100.0, 0.0]], requires_grad=True)
    loss = focal_loss(sure, torch.tensor([0]), focus=0.5)
    loss.backward()
    assert loss == 0


def test_share_of_right_kinds():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    assert right_share(logits, torch.tensor([0, 1, 1, 0])) == 0.5


def test_losses_are_those_of_clean_pictures_and_of_features_of_inputs():
    net, aim, given = network(), objective(weight=0.5), batch()
    losses = aim(net, given)
    expected = (net(given["target"]) - given["target"]).abs().mean()
    assert losses["l1"].item() == pytest.approx(expected.item(), rel=1e-5)
    with tapped(net, LAYERS) as heard:
        net(given["input"])
    logits = aim.classifier([heard[layer] for layer in LAYERS])
    classified = F.cross_entropy(logits, given["kind"])
    assert losses["classification"].item() == pytest.approx(classified.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((expected + 0.5 * classified).item(), rel=1e-5)


def test_steps_of_both_sides_are_those_of_one_sum():
    """The authors have one loss and one backward pass for network and classifier."""
    given = batch()
    joint_net, joint = network(), objective()
    joint(joint_net, given)["loss"].backward()
    net, aim = network(), objective()
    assert isinstance(aim, Partnered)
    for value in aim.partner.parameters():
        value.requires_grad_(False)
    aim(net, given)["loss"].backward()
    for value in aim.partner.parameters():
        value.requires_grad_(True)
    aim.partner_losses(aim.partner)["loss"].backward()
    for own, wanted in ((net, joint_net), (aim.partner, joint.partner)):
        for (name, one), other in zip(own.named_parameters(), wanted.parameters(), strict=True):
            assert one.grad is not None, name
            assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-6), name


def test_the_network_learns_what_the_classifier_needs():
    """Some steps, by the loop's own stepper: kinds are recognised, and the network's weights had a part."""
    net, aim = network(), objective()
    before = {name: value.clone() for name, value in net.named_parameters()}
    config = LoopConfig(
        steps=60, optimiser=OptimiserConfig(learning_rate=3e-3), schedule=ScheduleConfig(warmup=5),
        device="cpu",
    )  # fmt: skip
    stepper = Stepper(net, aim, config, Accelerator(cpu=True))
    for step in range(60):
        outcome = stepper.step(batch(seed=step), step)
    assert outcome.values["right"] == 1
    assert outcome.values["classification"] < 0.3
    assert {"loss", "l1", "partner_loss", "gradient", "partner_gradient"} <= outcome.values.keys()
    unmoved = [name for name, value in net.named_parameters() if torch.equal(value, before[name])]
    assert unmoved == []


def test_the_picture_can_be_seen_too():
    # The largest features are half as large as the picture.
    aim = objective(layers={"decoders.0": 8, "middle": 16}, picture=True)
    losses = aim(network(), batch())
    losses["loss"].backward()
    assert aim.classifier.embed.weight.grad.any()
    assert aim.partner_losses(aim.partner)["loss"].item() == pytest.approx(losses["classification"].item())


@pytest.mark.parametrize(
    ("settings", "change", "says"),
    [
        ({}, {"kind": None}, "degradation=one-of"),
        ({}, {"kind": torch.full((8,), 2)}, "objective.kinds names 2 kinds, but the degradation has 3"),
        ({}, {"input": torch.rand(8, 3, 8, 8)}, "scale 1"),
        ({"layers": {"decoders.1": 5}}, {}, r"widths \(4,\), not \(5,\)"),
        ({"layers": dict.fromkeys(["decoders.1", *"abcd"], 4)}, {}, "layer 'a'"),
    ],
)
def test_what_does_not_fit_is_said(settings, change, says):
    given = {name: value for name, value in {**batch(), **change}.items() if value is not None}
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        objective(**settings)(network(), given)


def test_features_that_are_halved_too_often_are_said():
    layers = {"middle": 16, "decoders.0": 8, "decoders.1": 4}
    with pytest.raises(ConfigError, match="halves 4x4 features too often"):
        objective(layers=layers)(network(), batch())


def test_features_that_shrink_too_fast_are_said():
    with pytest.raises(ConfigError, match=r"\(4, 4\) come too early where \(8, 8\) are due"):
        objective(layers={"decoders.1": 4, "middle": 16})(network(), batch())


@pytest.mark.parametrize(
    "values", [{"layers": {}}, {"kinds": 1}, {"focus": -1}, {"distance": {"label": "right"}}, {}]
)
def test_settings_that_make_no_sense_are_refused(values):
    needed = {} if not values else {"layers": LAYERS}
    with pytest.raises(ConfigError):
        DCPTConfig.parse({**needed, **values}, where="objective")
