"""The contrastive objective: who gets a gradient, what it draws, and whole runs, stopped and gone on with."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from relume.core.errors import ConfigError
from relume.nn.discriminators.pcl import PCLDiscriminatorConfig
from relume.recipes.runner import Run, find_recipe
from relume.train.objectives.base import Partnered
from relume.train.objectives.contrastive import ContrastiveConfig
from relume.train.observers import read_log
from relume.train.strategies.pcl_sr import contrast, draw_samples, dual_contrast, enlarged, strangers
from training import trained

TINY = {
    "steps": 20, "log_every": 1, "save_every": 5, "threads": 1, "data.patch": 24, "data.batch": 2,
    "network.width": 8, "network.depths": [1], "network.kernel_size": 3, "start": None,
    "optimiser.learning_rate": 5e-3, "schedule.warmup": 1,
    "objective": "contrastive", "objective.weight": 5.0,
    "objective.discriminator.width": 4, "objective.samples.positives": 1,
    "objective.samples.negatives": 2, "objective.optimiser.learning_rate": 1e-2,
}  # fmt: skip
KINDS = ["info-nce", "lmcl", "ratio", "cosine", "l2", "l1"]


def objective(**settings):
    torch.manual_seed(0)
    values = {"discriminator": {"width": 4}, "samples": {"positives": 1, "negatives": 2}, **settings}
    return ContrastiveConfig.parse(values, where="objective").build()


def test_the_judge_starts_from_its_authors_file(tmp_path):
    torch.manual_seed(3)
    judge = PCLDiscriminatorConfig(width=4).build()
    save_file({**judge.state_dict(), "DWT2.h0_col": torch.ones(2)}, tmp_path / "judge.safetensors")
    begun = objective(start=str(tmp_path / "judge.safetensors")).partner.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in judge.state_dict().items())


def batch():
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(3, 3, 36, 40, generator=generator)
    return {"input": nn.functional.avg_pool2d(high, 2), "target": high}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_contrast_reaches_the_network_and_the_judge_learns_by_its_own_loss(kind):
    ours = objective(kind=kind, layers=[2, 4], strangers=1, adversarial=0.1)
    assert isinstance(ours, Partnered)
    some = network()
    for value in ours.partner.parameters():
        value.requires_grad_(False)
    losses = ours(some, batch())
    assert losses["loss"].item() == pytest.approx(
        (losses["l1"] + 0.02 * losses["contrastive"] + 0.1 * losses["adversarial"]).item()
    )
    losses["contrastive"].backward()
    assert some[1].weight.grad.abs().sum() > 0
    for value in ours.partner.parameters():
        value.requires_grad_(True)
    some.zero_grad(set_to_none=True)
    own = ours.partner_losses(ours.partner)
    own["loss"].backward()
    assert some[1].weight.grad is None
    assert all(value.grad is not None for value in ours.partner.parameters())
    assert own.keys() == {"loss", "real", "fake"}


def test_it_is_the_contrast_of_the_samples_that_were_drawn():
    ours = objective(layers=[1, 4], strangers=2, adversarial=0.1)
    data, some = batch(), network()
    torch.manual_seed(3)
    losses = ours(some, data)
    torch.manual_seed(3)
    samples = draw_samples(ours.config.samples, data["input"], data["target"])
    assert torch.equal(samples.positives[0], data["target"])
    assert torch.equal(samples.negatives[0], enlarged(data["input"], data["target"]))
    assert [len(group) for group in (samples.positives, samples.negatives)] == [2, 3]

    def chosen(pictures):
        features = ours.discriminator.embed(pictures)[1]
        return [features[1], features[4]]

    near, far = ([chosen(one) for one in group] for group in (samples.positives, samples.negatives))
    output, judge = some(data["input"]), ours.partner
    expected = contrast("info-nce", chosen(output), near, far + strangers(far, 2))
    assert losses["contrastive"].item() == pytest.approx(expected.item())
    # To be taken for real is to stand out among targets.
    expected = dual_contrast(judge(output), judge(data["target"]))
    assert losses["adversarial"].item() == pytest.approx(expected.item())
    real, fake = (
        [judge(one) for one in samples.positives],
        [judge(one) for one in (output, *samples.negatives[1:])],
    )
    own = ours.partner_losses(judge)
    assert own["loss"].item() == pytest.approx(dual_contrast(torch.cat(real), torch.cat(fake)).item())
    alone = objective(judged=False)
    alone(some, data)
    own = alone.partner_losses(alone.partner)
    real, fake = alone.partner(data["target"]), alone.partner(output)
    assert own["loss"].item() == pytest.approx(dual_contrast(real, fake).item())


def test_samples_are_drawn_anew_within_their_ranges_and_by_the_seed():
    data = batch()
    settings = {"positives": 4, "negatives": 4, "sharpness": 1.0, "reach": [1, 1], "sigma": 1e-3}
    ours = objective(samples=settings)
    same = draw_samples(ours.config.samples, data["input"], data["target"])
    for some in (*same.positives[1:], *same.negatives[1:]):
        assert (some - data["target"]).abs().max() <= 0.5 / 255 + 1e-6
        assert (255 * some - (255 * some).round()).abs().max() < 1e-4
    torch.manual_seed(0)
    config = ContrastiveConfig().samples
    first = draw_samples(config, data["input"], data["target"])
    torch.manual_seed(0)
    second = draw_samples(config, data["input"], data["target"])
    third = draw_samples(config, data["input"], data["target"])
    for group in ("positives", "negatives"):
        ours, again, other = (getattr(one, group)[1:] for one in (first, second, third))
        assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(ours, other, strict=True))
        assert not torch.equal(ours[0], ours[1])


def test_strangers_are_the_same_pictures_in_another_order():
    torch.manual_seed(0)
    negatives = [[torch.arange(5.0).reshape(5, 1, 1, 1), torch.arange(5.0).reshape(5, 1, 1, 1)]] * 2
    found = strangers(negatives, 3)
    assert len(found) == 6
    assert all(torch.equal(a, b) for a, b in found)
    assert all(sorted(layer.flatten().tolist()) == [0, 1, 2, 3, 4] for layer, _ in found)
    assert len({tuple(layer.flatten().tolist()) for layer, _ in found}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_following_the_contrast_leads_to_the_target(kind):
    # The embedding is that of pixels, so that what is wanted can be told without a discriminator.
    torch.manual_seed(0)
    target, low = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    between = (target + low) / 2
    output = between.clone().requires_grad_()
    optimiser = torch.optim.Adam([output], lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        contrast(kind, [output], [[target]], [[low]]).backward()
        optimiser.step()
    cosine = nn.functional.cosine_similarity
    assert cosine(output, target, dim=1).mean() > cosine(between, target, dim=1).mean() + 0.15
    assert cosine(output, low, dim=1).mean() < cosine(between, low, dim=1).mean() - 0.15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": []}, "layers"),
        ({"layers": [8]}, "layers"),
        ({"halved": True}, "halved is for cosine, l2 and l1; info-nce takes the mean"),
        ({"distance": {"label": "contrastive"}}, "two losses are called 'contrastive'"),
        ({"samples": {"reach": [3, 1]}}, r"so \[1, 3\]"),
    ],
)
def test_settings_without_a_meaning_are_refused_in_a_line(settings, said):
    with pytest.raises(ConfigError, match=said):
        objective(**settings)


def prepare(photos, folder, **changes):
    changes = {**TINY, "data.folders": [str(photos)], **changes}
    return Run(find_recipe("cfsr-x2", "cpu").override(changes, where="recipe"), folder, command="test")


def test_a_run_trains_network_and_discriminator_and_logs_both(photos, tmp_path):
    run = prepare(photos, tmp_path / "run")
    partner = run.loop.stepper.objective.partner
    before = {name: value.detach().clone() for name, value in partner.named_parameters()}
    run.train()
    # Only differences of logits count, so the bias that they share is left where it was.
    assert {name for name, value in partner.named_parameters() if torch.equal(value, before[name])} <= {
        "classifier.1.bias"
    }
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert len(lines) == 20
    assert {"loss", "l1", "contrastive", "partner_loss", "real", "fake"} <= lines[-1].keys()
    assert lines[-1]["loss"] == pytest.approx(lines[-1]["l1"] + 5 * lines[-1]["contrastive"])
    for name in ("contrastive", "partner_loss", "l1"):
        first, last = (sum(line[name] for line in some) for some in (lines[:3], lines[-3:]))
        assert last < first, name


def test_a_stopped_run_goes_on_as_if_left_alone(photos, tmp_path):
    def finished(folder, *, stop_after=None):
        run = trained(lambda: prepare(photos, folder), stop_after=stop_after)
        return {**run.network.state_dict(), **run.loop.stepper.objective.partner.state_dict()}

    alone, stopped = finished(tmp_path / "alone"), finished(tmp_path / "stopped", stop_after=7)
    assert len(alone) > 60
    assert all(torch.equal(alone[name], stopped[name]) for name in alone)


def test_a_patch_too_small_ends_the_run_in_a_line(photos, tmp_path):
    run = prepare(photos, tmp_path / "run", **{"data.patch": 16, "data.batch": 1})
    with pytest.raises(ConfigError, match=r"one patch of 32×32 pixels.*raise data.batch or data.patch"):
        run.train()


def test_mixed_precision_gives_numbers(photos, tmp_path):
    prepare(photos, tmp_path / "run", precision="bf16", steps=3, **{"objective.adversarial": 0.01}).train()
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert len(lines) == 3
    assert "adversarial" in lines[-1]
