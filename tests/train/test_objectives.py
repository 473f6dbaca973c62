"""Pixel objectives against their formulas."""

import pytest
import torch

from relume.train.objectives.pixel import PixelConfig

FORMULAS = {
    "l1": lambda difference: difference.abs().mean(),
    "mse": lambda difference: difference.square().mean(),
    "charbonnier": lambda difference: (difference.square() + 1e-6).sqrt().mean(),
}


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_loss_is_the_formulas(name):
    torch.manual_seed(0)
    batch = {"input": torch.rand(2, 3, 4, 4), "target": torch.rand(2, 3, 4, 4)}
    losses = PixelConfig(name=name).build()(torch.nn.Identity(), batch)
    assert losses["loss"] == pytest.approx(FORMULAS[name](batch["input"] - batch["target"]).item())
