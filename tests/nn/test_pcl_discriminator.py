"""PCL-SR's discriminator: published sizes, the authors' keys, what it hears, and what it refuses."""

import json

import pytest
import torch
from pydantic import ValidationError

from relume.core.errors import ConfigError
from relume.nn.discriminators import pcl
from relume.nn.network import count_parameters

SIZES = [
    ({}, 4_691_265),
    ({"wavelet": False}, 4_687_809),
    ({"side": 192}, 23_567_169),
    ({"wavelet": False, "side": 192}, 80_186_817),
    ({"wavelet": False, "side": 96}, 23_563_713),
]


@pytest.mark.parametrize(("settings", "parameters"), SIZES)
def test_has_the_published_sizes_and_its_own_state_is_recognised(settings, parameters):
    config = pcl.PCLDiscriminatorConfig(**settings)
    with torch.device("meta"):
        judge = config.build()
        filters = {"DWT2.h0_col": torch.rand(1, 1, 2, 1)} if config.wavelet else {}
    assert count_parameters(judge) == parameters
    found, state = pcl.from_official({**judge.state_dict(), **filters})
    assert found == config
    assert state.keys() == judge.state_dict().keys()


def test_every_key_of_the_authors_state_has_its_place(shared):
    facts = json.loads((shared / "golden" / "pcl_sr" / "facts.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        theirs = {key: torch.empty(shape) for key, shape in facts["state_keys"].items()}
        config, state = pcl.from_official(theirs)
        ours = config.build().state_dict()
    assert config == pcl.PCLDiscriminatorConfig()
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in ours.items()
    }


def test_other_weights_are_not_taken_for_it():
    with torch.device("meta"):
        judge = pcl.PCLDiscriminatorConfig(width=2).build().state_dict()
    assert pcl.from_official({}) is None
    assert pcl.from_official({key: value for key, value in judge.items() if "14" not in key}) is None


def test_features_shrink_as_said_and_odd_sizes_are_taken():
    judge = pcl.PCLDiscriminatorConfig(width=2).build()
    logits, features = judge.embed(torch.rand(2, 3, 49, 66))
    assert logits.shape == (2, 1, 4, 4)
    sides = [(25, 33), *2 * [(13, 17)], *2 * [(7, 9)], *2 * [(4, 5)], (2, 3)]
    assert [tuple(some.shape) for some in features] == [
        (2, 2 * 2 ** (k // 2), *sides[k]) for k in range(pcl.LAYERS)
    ]


def test_a_logit_is_of_a_sixteenth_of_the_picture_by_its_mean():
    judge = pcl.PCLDiscriminatorConfig(width=2).build().eval()
    logits, features = judge.embed(torch.rand(1, 3, 256, 256))
    means = torch.nn.functional.avg_pool2d(features[-1], 2)
    assert torch.allclose(logits, judge.classifier[1](means), atol=1e-6)


def test_it_hears_details_alone():
    torch.manual_seed(0)
    judge = pcl.PCLDiscriminatorConfig(width=2).build().eval()
    x = torch.rand(1, 3, 32, 32, dtype=torch.float32)
    assert torch.allclose(judge(x), judge(x + 0.25), atol=1e-6)
    plain = pcl.PCLDiscriminatorConfig(width=2, wavelet=False).build().eval()
    assert not torch.allclose(plain(x), plain(x + 0.25), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({}, (2, 1, 64, 64), "set to 3 channels, the network gives 1"),
        ({}, (2, 3, 64, 1), "needs patches of 2 pixels a side, got 1×64"),
        ({"side": 32}, (2, 3, 48, 48), "set to pictures of 32×32, got 48×48"),
        ({}, (1, 3, 32, 20), "one patch of 20×32 pixels.*raise data.batch or data.patch"),
    ],
)
def test_what_cannot_be_judged_is_one_line(settings, shape, said):
    with pytest.raises(ConfigError, match=said):
        pcl.PCLDiscriminatorConfig(width=2, **settings).build()(torch.rand(shape))


def test_the_smallest_that_can_be_learnt_from():
    judge = pcl.PCLDiscriminatorConfig(width=2).build()
    assert judge(torch.rand(1, 3, 33, 2)).isfinite().all()
    assert judge(torch.rand(2, 3, 2, 2)).isfinite().all()
    assert judge.eval()(torch.rand(1, 3, 2, 2)).isfinite().all()


def test_a_side_that_the_wavelet_does_not_fit_is_refused():
    with pytest.raises(ValidationError, match="multiple of 32, not 48"):
        pcl.PCLDiscriminatorConfig(side=48)
    assert pcl.PCLDiscriminatorConfig(side=48, wavelet=False).shrinking == 16
