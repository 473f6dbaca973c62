"""Discriminators: the authors' recorded outputs, what they see, and what they refuse."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import spectral_norm

from relume.core.choices import ChosenFrom
from relume.core.errors import CheckpointError, ConfigError
from relume.nn.discriminators import patch, srgan, unet
from relume.nn.discriminators.base import PACKAGE
from relume.nn.network import count_parameters
from relume.train.objectives.adversarial import AdversarialConfig, Adversary

CHOICES = ChosenFrom(PACKAGE, "discriminator")


def test_every_discriminator_is_found_by_its_file():
    folder = Path(patch.__file__).parent
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    assert CHOICES.names() == sorted(name for name, text in texts.items() if "\nCONFIG = " in text)


@pytest.mark.parametrize(
    ("path", "ends_with"),
    [
        ("srgan_leftthomas/c_disc.safetensors", lambda logits: torch.sigmoid(logits[:, 0])),
        ("srresnet_lornatang/c_disc96.safetensors", lambda logits: logits),
    ],
)
def test_srgan_reproduces_the_authors_output(shared, path, ends_with):
    tensors = load_file(shared / "golden" / path)
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    config, ours = srgan.from_official(state)
    judge = config.build().eval()
    judge.load_state_dict(ours)
    with torch.no_grad():
        logits = judge(tensors["input"])
    assert logits.shape == (len(logits), 1)
    assert (ends_with(logits) - tensors["output"]).abs().max() <= 1e-5


def test_srgan_has_the_published_sizes():
    assert count_parameters(srgan.SRGANDiscriminatorConfig().build()) == 5_215_425
    with torch.device("meta"):
        assert count_parameters(srgan.SRGANDiscriminatorConfig(side=96).build()) == 23_563_649


def test_a_patch_logit_sees_seventy_pixels():
    with torch.device("meta"):
        # Pix2pix's own looks at input and output, three channels each.
        assert count_parameters(patch.PatchDiscriminatorConfig(channels=6).build()) == 2_768_705
    for depth, side in ((1, 16), (2, 34), (3, 70)):
        judge = patch.PatchDiscriminatorConfig(width=2, depth=depth).build().eval()
        x = torch.rand(1, 3, 2 * side, 2 * side, requires_grad=True)
        logits = judge(x)
        assert logits.shape[-1] == 2 * side // 2**depth - 2
        logits[0, 0, logits.shape[-2] // 2, logits.shape[-1] // 2].backward()
        rows, columns = x.grad.abs().sum((0, 1)).nonzero().unbind(1)
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side


def test_the_authors_patch_discriminator_is_taken_over():
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 1, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 4, 1, 1),
    ).eval()  # fmt: skip
    config, state = patch.from_official({f"model.{key}": value for key, value in theirs.state_dict().items()})
    judge = config.build().eval()
    judge.load_state_dict(state)
    x = torch.rand(2, 3, 20, 24)
    assert torch.equal(judge(x), theirs(x))


def test_the_authors_unet_is_taken_over():
    torch.manual_seed(0)
    wide = [
        *((3, 4, 3, 1), (4, 8, 4, 2), (8, 16, 4, 2), (16, 32, 4, 2)),
        *((32, 16, 3, 1), (16, 8, 3, 1), (8, 4, 3, 1), (4, 4, 3, 1), (4, 4, 3, 1), (4, 1, 3, 1)),
    ]
    layers = [
        nn.Conv2d(inputs, outputs, side, stride, 1, bias=index in (0, 9))
        for index, (inputs, outputs, side, stride) in enumerate(wide)
    ]
    layers = nn.ModuleDict(
        {f"conv{i}": layer if i in (0, 9) else spectral_norm(layer) for i, layer in enumerate(layers)}
    ).eval()
    config, state = unet.from_official(layers.state_dict())
    judge = config.build().eval()
    judge.load_state_dict(state)

    def run(name, x):
        return nn.functional.leaky_relu(layers[name](x), 0.2)

    def doubled(x):
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    picture = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        x0 = run("conv0", picture)
        x1 = run("conv1", x0)
        x2 = run("conv2", x1)
        x = run("conv4", doubled(run("conv3", x2))) + x2
        x = run("conv5", doubled(x)) + x1
        x = run("conv6", doubled(x)) + x0
        expected = layers["conv9"](run("conv8", run("conv7", x)))
        assert (judge(picture) - expected).abs().max() < 1e-6


def test_unet_holds_each_gain_to_one_and_takes_odd_sizes():
    torch.manual_seed(0)
    judge = unet.UNetDiscriminatorConfig(width=4).build()
    with torch.no_grad():
        for _, parameter in judge.named_parameters():
            parameter.mul_(30)
    for _ in range(10):
        logits = judge(torch.rand(1, 3, 13, 19))
    assert logits.shape == (1, 1, 13, 19)
    for name in ("conv1", "conv5", "conv8"):
        gain = torch.linalg.matrix_norm(getattr(judge, name).weight.flatten(1), 2)
        assert gain.item() == pytest.approx(1, abs=0.05), name
    with torch.device("meta"):
        # Real-ESRGAN's published discriminator.
        assert count_parameters(unet.UNetDiscriminatorConfig().build()) == 4_376_897


def test_training_starts_from_an_authors_file(shared, tmp_path):
    tensors = load_file(shared / "golden" / "srgan_leftthomas" / "c_disc.safetensors")
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    path = tmp_path / "netD.safetensors"
    save_file(state, path)
    config, ours = srgan.from_official(state)
    adversary = Adversary(AdversarialConfig(discriminator=config, start=str(path)))
    judge = adversary.discriminator.state_dict()
    assert all(torch.equal(judge[name], value) for name, value in ours.items())
    with pytest.raises(
        CheckpointError, match=r"netD.safetensors holds a SRGANDiscriminator of other settings \(.*width=\d"
    ):
        config.model_copy(update={"width": 2}).begun(str(path))
    with pytest.raises(CheckpointError, match="does not hold the weights of a UNetDiscriminator"):
        Adversary(AdversarialConfig(start=str(path)))
    with pytest.raises(CheckpointError, match="no file"):
        config.begun(str(tmp_path / "none.pth"))


@pytest.mark.parametrize("recognise", [patch.from_official, unet.from_official, srgan.from_official])
def test_other_weights_are_not_taken_for_a_discriminators(recognise):
    assert recognise({"features.0.weight": torch.rand(3, 3, 3, 3)}) is None


@pytest.mark.parametrize("name", CHOICES.names())
def test_gradients_reach_every_parameter_and_the_picture(name):
    torch.manual_seed(0)
    judge = CHOICES.named(name)(width=2).build()
    x = torch.rand(2, 3, 33, 34, requires_grad=True)
    judge(x).square().mean().backward()
    assert x.grad.abs().sum() > 0
    assert all(value.grad is not None and value.grad.isfinite().all() for value in judge.parameters())


@pytest.mark.parametrize(
    ("config", "shape", "said"),
    [
        (patch.PatchDiscriminatorConfig(width=2), (1, 1, 64, 64), "set to 3 channels, the network gives 1"),
        (
            patch.PatchDiscriminatorConfig(width=2),
            (1, 3, 64, 20),
            "needs patches of 24 pixels a side, got 20×64",
        ),
        (unet.UNetDiscriminatorConfig(width=2), (1, 3, 7, 64), "needs patches of 8 pixels a side, got 64×7"),
        (
            srgan.SRGANDiscriminatorConfig(width=2, side=32),
            (1, 3, 48, 48),
            "set to pictures of 32×32, got 48×48",
        ),
    ],
)
def test_what_cannot_be_judged_is_one_line(config, shape, said):
    with pytest.raises(ConfigError, match=said):
        config.build()(torch.rand(shape))


def test_the_smallest_patches_are_judged():
    for depth in (1, 2, 3):
        side = 3 * 2**depth
        assert patch.PatchDiscriminatorConfig(width=2, depth=depth).build().eval()(
            torch.rand(1, 3, side, side)
        ).shape == (1, 1, 1, 1)
    assert srgan.SRGANDiscriminatorConfig(width=2).build().eval()(torch.rand(1, 3, 1, 1)).shape == (1, 1)
