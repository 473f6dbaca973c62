"""A weighted sum of losses: the sum, one forward, what it says, and its teacher."""

import pytest
import torch
from torch import nn

from relume.core.choices import ChosenFrom
from relume.core.errors import CheckpointError, ConfigError, UnknownNameError
from relume.measures.losses.base import PACKAGE
from relume.measures.losses.ssim import ssim_loss
from relume.models import zoo
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.train.objectives.base import Partnered, Placed
from relume.train.objectives.models import build_objective
from relume.train.objectives.pixel import PixelConfig, PixelObjective
from relume.train.objectives.weighted import WeightedConfig

TINY = CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)


def load(name):
    return zoo.load(name)[0]


def weighted(**values):
    return WeightedConfig.parse({"name": "weighted", **values}, where="objective")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return {"input": torch.rand(2, 3, 12, 12), "target": torch.rand(2, 3, 24, 24)}


class Counting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.runs = network, 0

    def forward(self, x):
        self.runs += 1
        return self.network(x)


def test_loss_is_the_weighted_sum_of_one_forward(batch):
    network = Counting(CFSR(TINY))
    objective = weighted(
        parts=["l1", {"name": "ssim", "weight": 0.3}, {"name": "l1", "label": "again"}]
    ).build()
    losses = objective(network, batch)
    assert network.runs == 1
    assert list(losses) == ["loss", "l1", "ssim", "again"]
    output = network(batch["input"])
    l1, ssim = (output - batch["target"]).abs().mean(), ssim_loss(output, batch["target"])
    assert losses["ssim"].item() == pytest.approx(ssim.item())
    assert losses["loss"].item() == pytest.approx((2 * l1 + 0.3 * ssim).item())
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_alone_a_part_is_the_pixel_objective(batch):
    network = CFSR(TINY)
    for name in ("l1", "mse", "charbonnier"):
        theirs = PixelConfig(name=name).build()(network, batch)["loss"]
        assert weighted(parts=[name]).build()(network, batch)["loss"].item() == pytest.approx(theirs.item())


def test_losses_are_in_full_precision_whatever_the_networks(batch):
    network = CFSR(TINY)
    # Those of encoders need one; patches of 32 pixels are too small for five sizes.
    losses = ChosenFrom(PACKAGE, "loss")
    every = [
        name
        for name in losses.names()
        if "encoder" not in losses.named(name).model_fields and name != "ms-ssim"
    ]
    with torch.autocast("cpu", torch.bfloat16):
        output = network(batch["input"])
        losses = weighted(parts=every).build()(network, batch)
    outside = weighted(parts=every).build()(lambda _: output.float(), batch)
    assert all(losses[name].dtype == torch.float32 for name in losses)
    assert all(losses[name].item() == pytest.approx(outside[name].item(), rel=1e-5) for name in every)


def test_without_an_adversary_there_is_no_partner():
    objective = weighted().build()
    assert not isinstance(objective, Partnered)
    assert isinstance(objective, Placed)


def test_a_config_is_written_and_read_again(tmp_path):
    config = weighted(
        parts=["l1", {"name": "perceptual", "encoder": "cfsr-x2", "layers": {"fuse": 0.5}}],
        adversarial={"kind": "hinge", "discriminator": {"name": "patch", "width": 8}},
        distillation={"teacher": "cfsr-x2"},
    )
    assert WeightedConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.adversarial.discriminator.depth == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"parts": ["l2"]}, "unknown loss 'l2'; did you mean 'l1'"),
        ({"parts": ["l1", "l1"]}, "two losses are called 'l1'; give one a label"),
        ({"parts": [{"name": "l1", "label": "adversarial"}]}, "two losses are called 'adversarial'"),
        ({"parts": [{"name": "l1", "label": "real"}]}, "the log has another figure called 'real'"),
        ({"parts": [{"name": "l1", "label": "step"}]}, "the log has another figure called 'step'"),
        ({"parts": [{"name": "ssim", "peek": 3}]}, "peek"),
        ({"parts": [{"name": "ssim", "weight": 0}]}, "greater than 0"),
        ({"parts": []}, "teaches nothing"),
        ({"adversarial": {"discriminator": "uned"}}, "unknown discriminator 'uned'; did you mean 'unet'"),
    ],
)
def test_what_cannot_be_is_one_line(values, said):
    with pytest.raises(ConfigError, match=said) as error:
        weighted(**values)
    assert "\n" not in str(error.value)


def test_models_are_handed_down(batch):
    config = weighted(parts=[{"name": "perceptual", "encoder": "cfsr-x2", "layers": {"fuse": 1}}])
    losses = build_objective(config, load)(CFSR(TINY), batch)
    assert losses["perceptual"] > 0
    assert isinstance(build_objective(PixelConfig(), load), PixelObjective)
    with pytest.raises(ConfigError, match="a model by name can be used in a recipe only"):
        config.build()
    with pytest.raises(UnknownNameError):
        build_objective(weighted(distillation={"teacher": "cfsr-x9"}), load)


# Distillation.


def lesson(**settings):
    return build_objective(weighted(distillation={"teacher": "cfsr-x2", **settings}), load)


def test_distillation_is_the_distance_to_the_teacher(batch):
    student = CFSR(TINY)
    objective = lesson(weight=0.25, features={"fuse": "fuse"}, features_weight=2.0)
    losses = objective(student, batch)
    teacher = load("cfsr-x2")
    distance = (student(batch["input"]) - teacher(batch["input"])).abs().mean()
    assert losses["teacher"].item() == pytest.approx(distance.item(), rel=1e-5)
    assert 0 < losses["teacher_features"] <= 0.5**0.5
    expected = losses["l1"] + 0.25 * distance + 2 * losses["teacher_features"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["teacher_features"].backward(retain_graph=True)
    assert student.shallow.weight.grad.abs().sum() > 0
    losses["loss"].backward()
    assert all(parameter.grad is None for parameter in objective.lesson.teacher.parameters())


def test_a_teacher_that_is_the_network_has_nothing_to_teach(batch):
    losses = lesson(features={"stages.1": "stages.1"})(load("cfsr-x2"), batch)
    assert losses["teacher"].item() == pytest.approx(0, abs=1e-6)
    assert losses["teacher_features"].item() == pytest.approx(0, abs=1e-6)


def test_a_student_learns_from_its_teacher_alone(batch):
    torch.manual_seed(1)
    student = CFSR(TINY)
    objective = build_objective(
        weighted(parts=[], distillation={"teacher": "cfsr-x2", "distance": "mse"}), load
    )
    optimiser = torch.optim.Adam(student.parameters(), lr=5e-3)
    seen = []
    for _ in range(30):
        optimiser.zero_grad()
        losses = objective(student, batch)
        losses["loss"].backward()
        optimiser.step()
        seen.append(losses["teacher"].item())
    assert seen[-1] < 0.5 * seen[0]


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_file_teaches_outputs(batch, tmp_path):
    path = tmp_path / "teacher.pt"
    torch.jit.trace(nn.Upsample(scale_factor=2), batch["input"]).save(str(path))
    losses = weighted(distillation={"teacher": str(path)}).build()(CFSR(TINY), batch)
    assert losses["teacher"] > 0
    with pytest.raises(ConfigError, match="it is compiled; leave out features"):
        weighted(distillation={"teacher": str(path), "features": {"fuse": "fuse"}}).build()


def test_teachers_that_do_not_fit_are_told(batch, tmp_path):
    with pytest.raises(ConfigError, match="choose a teacher of the same scale"):
        lesson(teacher="cfsr-x4")(CFSR(TINY), batch)
    with pytest.raises(UnknownNameError, match=r"did you mean 'stages.1'"):
        lesson(features={"fuse": "stages.7"})
    with pytest.raises(UnknownNameError, match="did you mean 'fuse'"):
        lesson(features={"fuze": "fuse"})(CFSR(TINY), batch)
    (tmp_path / "wrong.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"wrong.safetensors"):
        lesson(teacher=str(tmp_path / "wrong.safetensors"))
