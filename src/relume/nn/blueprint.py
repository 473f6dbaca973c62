"""Blueprint separable convolutions: one k×k kernel a channel, whose strengths are mixed from all inputs.

Haase, Amthor, CVPR 2020, arXiv:2003.13549, eq. 4 ("unconstrained") and 7 ("subspace").
Shapes: B batch, I inputs, O outputs, M channels in between, H W.

Unlike in depthwise separable convolutions the mixing comes first.
"""

from __future__ import annotations

import math

from torch import nn

_LEAST = 4
"""Channels that the subspace has at least, where there are as many inputs."""


class BlueprintConv2d(nn.Sequential):
    """Mixes `B I H W` to `B O H W`, then convolves each channel 3×3 (BSConv-U).

    Args:
        inputs: I.
        outputs: O.
        stride: of the 3×3 convolution.
        padding: of the 3×3 convolution.
        bias: whether the mixing has one as well.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, padding: int = 1, bias: bool = False
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1, bias=bias),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=padding, groups=outputs),
        )


class SubspaceBlueprintConv2d(nn.Sequential):
    """Mixes `B I H W` to `B M H W` and that to `B O H W`, then convolves each channel 3×3 (BSConv-S).

    Args:
        inputs: I.
        outputs: O.
        stride: of the 3×3 convolution.
        padding: of the 3×3 convolution.
        share: M over I, rounded up to whole channels; 4 or I at least.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, padding: int = 1, share: float = 0.25
    ) -> None:
        # A share that was a quotient gives its whole number back.
        between = min(inputs, max(_LEAST, math.ceil(round(share * inputs, 6))))
        super().__init__(
            nn.Conv2d(inputs, between, 1, bias=False),
            nn.Conv2d(between, outputs, 1, bias=False),
            nn.Conv2d(outputs, outputs, 3, stride=stride, padding=padding, groups=outputs),
        )
