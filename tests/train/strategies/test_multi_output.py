"""Laws of multi-output: who is taught, who is shown, and a whole run that is stopped and gone on with."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from relume.core.errors import ConfigError, RelumeError
from relume.models import zoo
from relume.models.restoration.hinet import HINet, HINetConfig
from relume.models.restoration.nafnet import NAFNet, NAFNetConfig
from relume.recipes.runner import Run, find_recipe
from relume.train.objectives.base import Recording
from relume.train.objectives.multi_output import MultiOutputConfig
from relume.train.observers import read_log
from relume.train.strategies.multi_output import distances, judge, nearest
from training import trained

SMALL = NAFNetConfig.parse(
    {"width": 4, "encoders": [1], "decoders": [1], "patch": [16, 16], "heads": {"count": 3}}, where="test"
)


def batch(count=4, side=12):
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(count, 3, side, side, generator=generator)
    return {"input": high + 0.1 * torch.randn(high.shape, generator=generator), "target": high}


def network(config=SMALL):
    torch.manual_seed(1)
    return NAFNet(config).train()


@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from(["psnr", "l1"]))
def test_the_loss_is_that_of_the_nearest_picture_of_each_case(cases, count, kind):
    pictures, target = torch.rand(cases, count, 3, 5, 4), torch.rand(cases, 3, 5, 4)
    each = distances(kind, pictures, target)
    for case in range(cases):
        for index in range(count):
            difference = pictures[case, index] - target[case]
            expected = difference.abs().mean().item()
            if kind == "psnr":
                expected = 10 * math.log10(difference.square().mean().item() + 1e-8)
            assert each[case, index].item() == pytest.approx(expected, abs=1e-4)
    assert nearest(each).item() == pytest.approx(each.amin(1).mean().item())
    more = torch.cat([pictures, target[:, None]], 1)
    assert nearest(distances("l1", more, target)) == 0


def test_only_the_nearest_picture_is_taught():
    target = torch.rand(2, 3, 4, 4)
    pictures = torch.stack([target + 0.3, target + 0.1, target - 0.2], 1).requires_grad_()
    nearest(distances("psnr", pictures, target)).backward()
    taught = pictures.grad.abs().sum((0, 2, 3, 4)) > 0
    assert taught.tolist() == [False, True, False]


def test_the_objective_hears_all_pictures_and_keeps_their_record():
    some, data = network(), batch()
    objective = MultiOutputConfig(distance="l1").build()
    assert isinstance(objective, Recording)
    losses = objective(some, data)
    assert not some.heads.record.any()
    objective.remember(objective.noted())
    pictures = some.every(data["input"])
    assert losses["loss"].item() == pytest.approx(nearest(distances("l1", pictures, data["target"])).item())
    assert some.heads.record.tolist() == pytest.approx(
        (0.01 * distances("l1", pictures, data["target"]).mean(0)).tolist()
    )
    losses["loss"].backward()
    assert some.ending.weight.grad.any()
    assert not some.heads._forward_hooks


def test_every_stage_is_taught():
    torch.manual_seed(0)
    some = HINet(
        HINetConfig.parse({"width": 4, "depth": 2, "normed": [1], "heads": {"count": 2}}, where="test")
    )
    data = batch()
    objective = MultiOutputConfig().build()
    losses = objective(some.train(), data)
    objective.remember(objective.noted())
    stages = some.stages(data["input"])
    expected = sum(nearest(distances("psnr", stage, data["target"])).item() for stage in stages)
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)
    shown = some.heads.shown(stages[-1])
    single = distances("psnr", shown[:, None], data["target"]).mean().item()
    # It was shown before its record took this batch in: the first.
    assert losses["single"].item() == pytest.approx(
        distances("psnr", stages[-1][:, :1], data["target"]).mean().item(), rel=1e-5
    )
    assert single == pytest.approx(
        min(distances("psnr", stages[-1], data["target"]).mean(0)).item(), rel=1e-5
    )


def test_a_network_without_heads_is_refused():
    with pytest.raises(ConfigError, match="heads"):
        MultiOutputConfig().build()(nn.Conv2d(3, 3, 3, padding=1), batch())
    with pytest.raises(ConfigError, match="one picture"):
        judge(nn.Conv2d(3, 3, 3), [])


@torch.no_grad()
def test_judging_finds_the_best_single_and_the_best_overall_and_shows_the_former():
    some = network().eval()
    some.ending.weight.zero_()
    # Pictures are the input made brighter by these.
    some.ending.bias.copy_(torch.tensor([20.0, -10.0, 60.0]).repeat_interleave(3) / 255)
    low = torch.full((3, 9, 8), 100 / 255)
    pairs = [(low, low + levels / 255) for levels in (18.0, -9.0, -13.0)]
    judgement = judge(some, pairs)

    def psnr(levels):
        return -10 * math.log10((levels / 255) ** 2 + 1e-8)

    expected = [
        sum(psnr(level - other) for other in (18.0, -9.0, -13.0)) / 3 for level in (20.0, -10.0, 60.0)
    ]
    assert judgement.psnr == pytest.approx(expected, abs=1e-3)
    assert judgement.best == 1
    assert judgement.single == pytest.approx(expected[1], abs=1e-3)
    assert judgement.overall == pytest.approx((psnr(2.0) + psnr(1.0) + psnr(3.0)) / 3, abs=1e-3)
    assert torch.equal(some(low[None]), some.every(low[None])[:, 1])
    with pytest.raises(RelumeError, match="no pairs"):
        judge(some, [])


def test_several_pictures_fit_what_one_cannot():
    """One input, two targets: one picture ends at their mean, two end at both."""
    low = torch.full((2, 3, 4, 4), 0.5)
    high = low + torch.tensor([0.2, -0.2])[:, None, None, None]
    errors = {}
    for count in (1, 2):
        some = network(SMALL.override({"heads.count": count}, where="test"))
        objective = MultiOutputConfig(distance="l1").build()
        optimiser = torch.optim.Adam(some.parameters(), lr=2e-2)
        for _ in range(100):
            optimiser.zero_grad()
            loss = objective(some, {"input": low, "target": high})["loss"]
            loss.backward()
            optimiser.step()
        errors[count] = loss.item()
    assert errors[1] > 0.15
    assert errors[2] < 0.05


TINY = {
    "steps": 12, "log_every": 1, "save_every": 4, "threads": 1, "data.patch": 16, "data.batch": 2,
    "network.width": 4, "network.encoders": [1], "network.decoders": [1], "network.middle": 1,
    "network.patch": [16, 16], "degradation.length": [2.0, 4.0], "schedule.warmup": 1,
}  # fmt: skip


def prepare(photos, folder, **changes):
    changes = {**TINY, "data.folders": [str(photos)], **changes}
    recipe = find_recipe("mhnafnet-small", "cpu").override(changes, where="recipe")
    return Run(recipe, folder, command="test")


def test_a_stopped_run_goes_on_as_if_left_alone_and_its_weights_know_what_to_show(photos, tmp_path):
    def finished(folder, *, stop_after=None):
        trained(lambda: prepare(photos, folder), stop_after=stop_after)
        return zoo.load(folder / "mhnafnet-small.safetensors")[0]

    alone, stopped = finished(tmp_path / "alone"), finished(tmp_path / "stopped", stop_after=7)
    assert alone.config.heads.count == 4
    assert alone.heads.record.unique().numel() > 1
    ours, theirs = alone.state_dict(), stopped.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = read_log(tmp_path / "alone" / "log.jsonl")
    assert len(lines) == 12
    assert all(line["single"] >= line["loss"] for line in lines)


def test_one_head_and_mixed_precision_train_by_the_same_recipe(photos, tmp_path):
    changes = {"steps": 2, "precision": "bf16", "network.heads.count": 1, "network.heads.combined": False}
    prepare(photos, tmp_path / "run", **changes).train()
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert [line["loss"] for line in lines] == [line["single"] for line in lines]
