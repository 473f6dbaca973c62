"""Perceptual loss: distance of features, which sees texture where pixels see noise.

Johnson, Alahi, Fei-Fei, ECCV 2016, arXiv:1603.08155, eq. 2; before activation as in ESRGAN (Wang et al.,
arXiv:1809.00219). With φ_l the features of layer l and w_l its weight:

    loss = Σ_l w_l · mean |φ_l(output) - φ_l(target)|   (or mean (…)²)

Any encoder will do (`nn.encoders`): a VGG of the user's weights, a compiled file, any model of relume's.
Real-ESRGAN's weights for VGG-19 are conv1_2 0.1, conv2_2 0.1, conv3_4 1, conv4_4 1, conv5_4 1.
Ranges: from 0 up, in the features' units. Shapes: B C H W.
"""

from __future__ import annotations

from typing import Literal

from torch.nn import functional as F

from relume.measures.losses.base import Loss
from relume.measures.losses.features import FeatureLoss, FeatureLossConfig
from relume.nn.encoders.opening import LoadNetwork


class PerceptualLossConfig(FeatureLossConfig):
    """Which features, and their distance.

    Attributes:
        distance: "l1" or "mse".
    """

    name: Literal["perceptual"] = "perceptual"
    distance: Literal["l1", "mse"] = "l1"

    def build(self, load: LoadNetwork) -> Loss:
        """Return the loss.

        Raises:
            RelumeError: the encoder cannot be opened.
        """
        distance = F.l1_loss if self.distance == "l1" else F.mse_loss
        return FeatureLoss(self.open(load), distance, self.layers)


CONFIG = PerceptualLossConfig
