"""PCL-SR against what the authors' own code computes: samples, losses, steps of the discriminator, VGG."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from relume.nn.discriminators import pcl
from relume.nn.encoders import vgg
from relume.train.strategies.pcl_sr import blur, contrast, dual_contrast, enlarged, rounded, sharpen

KINDS = {"InfoNCE": "info-nce", "LMCL": "lmcl", "l1": "l1", "cosine": "cosine", "InfoNCE_L1": "ratio"}


def close(computed, recorded, what, tolerance=1e-4):
    assert computed.shape == recorded.shape, what
    difference = (computed.detach().double() - recorded.double()).abs().max()
    assert difference <= tolerance, f"{what} differs by {difference:.2e}"


@pytest.fixture
def case(shared):
    return lambda name: load_file(shared / "golden" / "pcl_sr" / f"{name}.safetensors")


def discriminator_of(case):
    state = {key.removeprefix("state/"): value for key, value in case.items() if key.startswith("state/")}
    config, ours = pcl.from_official(state)
    assert config.wavelet
    assert config.side is None
    judge = config.build()
    judge.load_state_dict(ours)
    return judge


def samples_of(case):
    return [case["pos.0"], case["pos.1"]], [enlarged(case["neg.0"], case["pos.0"]), case["neg.1"]]


def test_samples(case):
    case = case("a_samples")
    pictures = case["input"] / 255
    for index in range(3):
        sharp = sharpen(pictures, case["sharp_value"][index])
        close(255 * sharp, case[f"output.sharp_raw.{index}"], "sharpened")
        close(255 * rounded(sharp), case[f"output.pos.{index}"], "positive")
        sides, sigmas = (case[f"blur_{name}"][index].tolist() for name in ("kernel_size", "sigma"))
        close(
            255 * rounded(blur(pictures, sides=sides, sigmas=sigmas)), case[f"output.neg.{index}"], "blurred"
        )


@pytest.mark.parametrize("name", ["InfoNCE", "LMCL", "l1", "cosine"])
def test_contrast_of_the_discriminators_features(case, name):
    case = case("b_losses")
    judge = discriminator_of(case)
    output = case["input.sr"].requires_grad_()
    logits, own = judge.embed(output)
    close(logits, case["output.logits"], "logits")
    for layer in (1, 4):
        close(own[layer], case[f"output.feature.{layer}"], f"features {layer}")
    with torch.no_grad():
        positives, negatives = ([judge.embed(some)[1] for some in group] for group in samples_of(case))
    chosen = [[features[1], features[4]] for features in (own, *positives, *negatives)]
    loss = contrast(KINDS[name], chosen[0], chosen[1:3], chosen[3:], halved=name == "l1")
    close(loss, case[f"output.{name}.loss"], "loss")
    loss.backward()
    close(10 * output.grad, case[f"output.{name}.grad_sr_x10"], "gradient")
    state = judge.state_dict()
    statistics = [key for key in case if key.startswith("output.after.")]
    assert len(statistics) == 16
    for key in statistics:
        close(state[key.removeprefix("output.after.")], case[key], key)


def test_two_steps_of_the_discriminator_then_the_networks_loss(case):
    case = case("c_dstep_patch")
    judge = discriminator_of(case)
    output = case["input.sr"].requires_grad_()
    positives, negatives = samples_of(case)
    optimiser = torch.optim.Adam(judge.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    costs = []
    for _ in range(2):
        fake, real = [judge(output.detach())], [judge(positives[0])]
        real += [judge(some) for some in positives[1:]]
        fake += [judge(some) for some in negatives[1:]]
        loss = dual_contrast(torch.cat(real), torch.cat(fake))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        costs.append(loss.detach())
    close(torch.stack(costs).mean(), case["output.loss_d"], "discriminator's loss")

    def chosen(some):
        logits, features = judge.embed(some)
        return logits, [features[2], features[4]]

    def loss_of(fake, own):
        return dual_contrast(fake, real) + 2 * contrast(
            "info-nce", own, [some for _, some in near], [some for _, some in far]
        )

    with torch.no_grad():
        published = chosen(output)
        real = chosen(positives[0])[0]
        near, far = ([chosen(some) for some in group] for group in (positives, negatives))
    close(loss_of(*published), case["output.loss_g"], "network's loss")
    state = judge.state_dict()
    after = [key for key in case if key.startswith("output.after.")]
    assert len(after) == 41
    for key in after:
        close(state[key.removeprefix("output.after.")], case[key], key)
    # The slip of the published code: as its features of the output have no gradient, its loss has none.
    assert not loss_of(*published).requires_grad
    ours = loss_of(*chosen(output))
    close(ours, case["output.loss_g"], "our network's loss")
    ours.backward()
    assert output.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "positives"), [("InfoNCE", 2), ("InfoNCE_L1", 1)])
def test_contrast_of_a_vggs_features(case, name, positives):
    case = case("d_vgg_infonce")
    state = {
        key.rsplit(".", 2)[-2] + "." + key.rsplit(".", 1)[-1]: case[key]
        for key in case
        if key.startswith("state/")
    }
    config, ours = vgg.from_official(state)
    # Their five slices end after the first activation of each block.
    encoder = vgg.VGG(config, ("relu2_1", "relu3_1", "relu5_1"), imagenet=False)
    encoder.module.load_state_dict(ours)
    output = case["input.sr"].requires_grad_()
    near, far = samples_of(case)
    embedded = [list(encoder(some).values()) for some in (output, *near[:positives], *far)]
    loss = contrast(KINDS[name], embedded[0], embedded[1 : 1 + positives], embedded[1 + positives :])
    close(loss, case[f"output.{name}.loss"], "loss")
    loss.backward()
    scale, recorded = (100, "grad_sr_x100") if name == "InfoNCE" else (1, "grad_sr")
    close(scale * output.grad, case[f"output.{name}.{recorded}"], "gradient")


def test_l2_is_the_published_quotient_of_cosines():
    # The authors' code has this kind, but no case holds it; told apart from `contrast` by its written form.
    torch.manual_seed(0)
    output, p, q, n = (torch.randn(2, 3, 4, 5) for _ in range(4))

    def similarity(a, b):
        return F.cosine_similarity(a, b, dim=1).mean()

    expected = (1 - (similarity(output, p) + similarity(output, q)) / 2) / (1 - similarity(output, n) + 3e-7)
    close(contrast("l2", [output], [[p], [q]], [[n]]), expected, "l2")
