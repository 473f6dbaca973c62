"""The perceptual distance against its equation, on a small encoder."""

import pytest
import torch
from damaging import BUNDLED, blurred, noisy, photo
from safetensors.torch import save_file
from torch import nn

from relume.core.errors import CheckpointError, ConfigError
from relume.measures.perceptual import PerceptualDistance, read_channel_weights
from relume.nn.encoders.base import TappedEncoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 3, stride=2), nn.ReLU())
    return TappedEncoder(layers, ["1", "3"])


def _by_the_book(encoder, output, target, weights):
    total = 0.0
    with torch.no_grad():
        seen, wanted = encoder(output[None].float()), encoder(target[None].float())
    for name in seen:
        a, b = seen[name][0].double(), wanted[name][0].double()
        positions = []
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                p, q = a[:, i, j], b[:, i, j]
                p, q = p / (p.norm() + 1e-10), q / (q.norm() + 1e-10)
                positions.append((weights[name] * (p - q) ** 2).sum())
        total += torch.stack(positions).mean().item()
    return total


def test_equals_the_equation(encoder):
    output, target = torch.rand(2, 3, 12, 11)
    weights = {"1": torch.rand(5).double(), "3": torch.rand(7).double()}
    distance = PerceptualDistance(encoder=encoder, weights=weights)
    expected = _by_the_book(encoder, output, target, weights)
    assert distance.measure(output, target) == pytest.approx(expected, abs=1e-10)
    assert expected > 1e-3
    alike = {"1": torch.full((5,), 0.5), "3": torch.full((7,), 0.5)}
    unweighted = PerceptualDistance(encoder=encoder).measure(output, target)
    assert unweighted == pytest.approx(_by_the_book(encoder, output, target, alike), abs=1e-10)


def test_grows_with_damage_and_is_a_distance(encoder):
    picture = photo(BUNDLED)[:, :96, :96]
    distance = PerceptualDistance(encoder=encoder)
    for damage, strengths in ((blurred, (0.5, 1, 2)), (noisy, (5, 15, 30))):
        values = [distance.measure(damage(picture, each), picture) for each in strengths]
        assert values == sorted(values)
        assert values[0] > 0
    assert distance.measure(picture, picture) == 0
    other = blurred(picture, 1)
    assert distance.measure(picture, other) == pytest.approx(distance.measure(other, picture), abs=1e-15)


def test_learnt_weights_are_read_in_order(tmp_path, encoder):
    path = tmp_path / "lpips.safetensors"
    first, second = torch.rand(1, 5, 1, 1), torch.rand(1, 7, 1, 1)
    save_file({"lin1.model.1.weight": second, "lin0.model.1.weight": first}, path)
    weights = read_channel_weights(path, ("1", "3"))
    assert torch.equal(weights["1"], first.flatten())
    assert torch.equal(weights["3"], second.flatten())
    assert PerceptualDistance(encoder=encoder, weights=weights).measure(*torch.rand(2, 3, 12, 12)) > 0
    with pytest.raises(CheckpointError, match="weights for 2 layers and 1 are named"):
        read_channel_weights(path, ("1",))


def test_refusals(encoder):
    output = torch.rand(3, 12, 12)
    with pytest.raises(ValueError, match="C × H × W"):
        PerceptualDistance(encoder=encoder).measure(output, torch.rand(3, 12, 13))
    weights = {"1": torch.ones(5), "3": torch.ones(6)}
    with pytest.raises(ConfigError, match="layer '3' of the encoder has 7 channels and 6 weights"):
        PerceptualDistance(encoder=encoder, weights=weights).measure(output, output)
    with pytest.raises(ConfigError, match="no weights"):
        PerceptualDistance(encoder=encoder, weights={"1": torch.ones(5)}).measure(output, output)
