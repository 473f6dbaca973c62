"""What draws or keeps records: a batch in parts gives what it gives whole."""

import copy
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from relume.core.config import Config
from relume.core.contract import Contract
from relume.measures.losses.contextual import contextual
from relume.models.restoration.nafnet import NAFNet, NAFNetConfig
from relume.nn.network import Network
from relume.nn.slider import make_tunable
from relume.train.objectives.base import Drawing, Recording, Share, drawn_alike
from relume.train.objectives.contrastive import ContrastiveConfig
from relume.train.objectives.multi_loss import MultiLossConfig, draw
from relume.train.objectives.multi_output import MultiOutputConfig
from relume.train.objectives.pixel import PixelConfig
from relume.train.objectives.weighted import WeightedObjective
from relume.train.settings import LoopConfig
from relume.train.stepping import Stepper
from relume.train.strategies.pcl_sr import SamplesConfig, draw_samples


class Small(Network):
    """Two convolutions around a skip."""

    config = Config()

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 3, 3, padding=1))

    @property
    def contract(self):
        return Contract(scale=1, channels=3, halo=2)

    def forward(self, x):
        return x + self.body(x)


def tunable():
    network = Small()
    make_tunable(network)
    return network


def many_headed():
    values = {"width": 4, "encoders": [1], "decoders": [1], "patch": [8, 8], "heads": {"count": 3}}
    return NAFNet(NAFNetConfig.parse(values, where="test"))


CASES = {
    "multi-loss": (
        tunable,
        lambda: MultiLossConfig.parse({"aims": [["charbonnier"], ["mse"]]}, where="test").build(),
    ),
    "contextual": (
        Small,
        lambda: WeightedObjective({"contextual": (1.0, partial(contextual, places=20))}),
    ),
    "multi-output": (many_headed, lambda: MultiOutputConfig(distance="l1").build()),
}


def stepper(network, objective, **settings):
    config = LoopConfig(**{"steps": 20, "schedule": {"warmup": 0}, **settings})
    return Stepper(network, objective, config, Accelerator(cpu=True))


def batch(step, size=6):
    generator = torch.Generator().manual_seed(step)
    low = torch.rand(size, 3, 8, 8, generator=generator)
    return {"input": low, "target": low.flip(1)}


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_give_what_the_whole_gives(case, parts):
    build, objective = CASES[case]
    torch.manual_seed(0)
    network = build()
    whole, cut = (stepper(copy.deepcopy(network), objective(), accumulate=count) for count in (1, parts))
    for step in range(6):
        ours, theirs = (one.step(batch(step), step).values for one in (whole, cut))
        assert ours["loss"].item() == pytest.approx(theirs["loss"].item(), abs=1e-5)
    ours, theirs, first = (one.state_dict() for one in (whole.network, cut.network, network))
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) <= 1e-5
    assert all((ours[name] - first[name]).abs().max() > 1e-4 for name in ours if "record" in name)
    assert any((ours[name] - first[name]).abs().max() > 1e-3 for name in ours)


def test_a_step_that_is_refused_leaves_no_record():
    torch.manual_seed(0)
    network = many_headed()
    objective = MultiOutputConfig().build()
    assert isinstance(objective, Recording)
    one = stepper(network, objective)
    one.step(batch(0), 0)
    before = network.heads.record.clone()
    assert one.step({name: value * float("nan") for name, value in batch(1).items()}, 1).broken
    assert before.any()
    assert torch.equal(network.heads.record, before)


def test_who_draws_is_told_its_place_and_the_seed_of_the_step():
    class Listening(ContrastiveConfig().build().__class__):
        def __call__(self, network, batch):
            seen.append(self.share)
            return super().__call__(network, batch)

    seen = []
    objective = Listening(ContrastiveConfig.parse({"discriminator": {"width": 4}}, where="test"))
    assert isinstance(objective, Drawing)
    assert not isinstance(PixelConfig().build(), Drawing)
    data = {name: torch.rand(4, 3, 32, 32) for name in ("input", "target")}
    one = stepper(Small(), objective, accumulate=2)
    for step in (0, 1, 0):
        one.step(data, step)
    assert [(share.place, share.places) for share in seen] == [(0, 2), (1, 2)] * 3
    first, same, second, _, again, _ = (share.seed for share in seen)
    assert first == same == again != second
    seen.clear()
    stepper(Small(), objective, seed=2).step(data, 0)
    assert seen[0].seed not in (first, second)


def test_samples_of_parts_are_those_of_the_whole():
    config, share = SamplesConfig(), Share(seed=5)
    low, high = torch.rand(6, 3, 4, 4), torch.rand(6, 3, 8, 8)
    with drawn_alike(share):
        whole = draw_samples(config, low, high)
    parts = []
    for place in range(3):
        with drawn_alike(share):
            mine = slice(2 * place, 2 * place + 2)
            parts.append(draw_samples(config, low[mine], high[mine], place=place, places=3))
    for group in ("positives", "negatives"):
        for index, wanted in enumerate(getattr(whole, group)):
            found = torch.cat([getattr(part, group)[index] for part in parts])
            assert torch.allclose(found, wanted, atol=1e-6)
    # Each picture has a factor of its own.
    with drawn_alike(share):
        other = draw_samples(config, low[2:4], high[2:4], place=0, places=3)
    assert not torch.allclose(other.positives[1], whole.positives[1][2:4], atol=1e-3)


def test_drawing_alike_leaves_other_random_numbers_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with drawn_alike(Share(seed=2**64 - 1)):
        first = draw(2)
    assert torch.equal(torch.rand(4), expected)
    with drawn_alike(Share(seed=2**64 - 1)):
        assert torch.equal(draw(2), first)
    torch.manual_seed(3)
    with drawn_alike(None):
        assert torch.equal(torch.rand(4), expected)
