"""A short arithmetic that is watched: what it cannot hold is computed again in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from relume.infer.choosing import make_ready
from relume.infer.engines.base import Place
from relume.infer.engines.torch import TorchEngine
from relume.infer.operators import Operator
from relume.nn.network import Network


class Guarded:
    """An operator in bf16 or fp16 whose outputs are looked through for NaN and infinity.

    Where one is found, that tile and all that follow are run by PyTorch in float32, and it is said.

    Args:
        operator: the engine in short arithmetic.
        network: the same model.
        place: where the operator runs.
        say: told of the change.
    """

    def __init__(
        self, operator: Operator, network: Network, place: Place, *, say: Callable[[str], None] | None
    ) -> None:
        self._operator, self._network, self._place, self._say = operator, network, place, say
        self._gave_way = False
        self.scale, self.channels, self.halo = operator.scale, operator.channels, operator.halo

    def __call__(self, low: Tensor) -> Tensor:
        """Map `B C h w` to `B C sh sw`."""
        output = self._operator(low)
        if self._gave_way or math.isfinite(output.sum().item()):
            return output
        self._gave_way = True
        if self._say:
            self._say("the short arithmetic gave values that are no numbers; going on in fp32, by PyTorch")
        here = {device.split(":")[0] for device in TorchEngine.devices}
        device = self._place.device if self._place.device.split(":")[0] in here else "cpu"
        self._operator = make_ready(
            self._network, engine="torch", place=replace(self._place, precision="fp32", device=device)
        )
        return self._operator(low)
