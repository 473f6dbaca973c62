"""The base of networks whose last convolution makes all sub-pixels at once (Shi et al., arXiv:1609.05158)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.network import Network
from relume.nn.upsample import respread_subpixels


class SubpixelNetwork(Network):
    """Ends in the convolution `reconstruct`, N channels to C·f², and a pixel shuffle by f."""

    reconstruct: nn.Conv2d

    def enlarged(self, features: Tensor) -> Tensor:
        """Map features `B N H W` to a picture `B C fH fW`."""
        return F.pixel_shuffle(self.reconstruct(features), self._factor())

    def start_from(self, source: Network) -> list[str]:
        """Take over a relative's trunk and, where the scale differs, its nearest sub-pixels."""
        left = super().start_from(source)
        if isinstance(source, SubpixelNetwork) and "reconstruct.weight" in left:
            factors = {"old": source._factor(), "new": self._factor()}
            if respread_subpixels(source.reconstruct, self.reconstruct, **factors):
                left = [name for name in left if not name.startswith("reconstruct.")]
        return left

    def _factor(self) -> int:
        return math.isqrt(self.reconstruct.out_channels // self.contract.channels)
