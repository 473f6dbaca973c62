"""A model ready for use: picture in, picture out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relume.core.errors import RelumeError
from relume.core.pictures import Picture, bleed_colour
from relume.infer.tiling import run_tiled
from relume.nn.network import Network

WHOLE = 0
"""Tile size that means: the whole picture at once."""

DEFAULT_TILE = 640
"""Longest tile side in input pixels; CFSR takes 2 KB for each, with its halo 1.2 GiB at the most."""


@dataclass(frozen=True)
class Engine:
    """What executes a model.

    Attributes:
        name: "torch".
        device: "cpu", "cuda" …
    """

    name: str
    device: str

    def __str__(self) -> str:
        return f"{self.name} on {self.device}"


class Restorer:
    """A loaded model, called with a picture.

    Args:
        network: the model, in evaluation mode.
        name: what to call it.
        device: where to run it; None takes a CUDA GPU where there is one, else the CPU.

    Raises:
        RelumeError: the device is not there.
    """

    def __init__(self, network: Network, *, name: str, device: str | None = None) -> None:
        self.name = name
        self.contract = network.contract
        self.engine = Engine("torch", device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self._network = network.to(self.engine.device).eval()
            self._on_device(torch.zeros(1, self.contract.channels, 1, 1)).cpu()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0][:160]
            raise RelumeError(
                f"cannot run on the device {self.engine.device!r} ({reason}); use cpu, or see relume doctor"
            ) from error

    @property
    def scale(self) -> int:
        """Output pixels for each input pixel along a side."""
        return self.contract.scale

    def __call__(
        self, picture: Picture, *, tile: int = DEFAULT_TILE, advance: Callable[[float], None] | None = None
    ) -> Picture:
        """Enlarge a picture; gray stays gray, alpha is enlarged as a plane of its own, metadata is kept.

        Args:
            picture: what `relume.read` gave.
            tile: longest side of the tiles in input pixels; `WHOLE` runs the picture in one piece.
            advance: told the share done, 0..1.
        """
        planes = 1 if picture.alpha is None else 2

        def share(done: float, index: int) -> None:
            if advance:
                advance((index + done) / planes)

        colour = picture.pixels
        if picture.alpha is not None:
            colour = bleed_colour(colour, picture.alpha)
        pixels = self._plane(colour, tile, lambda done: share(done, 0))
        alpha = picture.alpha
        if alpha is not None and bool((alpha == alpha[0, 0, 0]).all()):
            # The same everywhere, as the alpha of most pictures that have one: nothing to compute.
            alpha = alpha[:, :1, :1].expand(1, *pixels.shape[-2:]).contiguous()
        elif alpha is not None:
            alpha = self._plane(alpha, tile, lambda done: share(done, 1))
        return replace(picture, pixels=pixels, alpha=alpha)

    def run(
        self, low: Tensor, *, tile: int = WHOLE, advance: Callable[[float], None] | None = None
    ) -> Tensor:
        """Run the model on a batch `B C H W` with values 0..1; gives `B C sH sW` on the CPU, not clamped.

        A model of unbounded reach runs whole, whatever the tile.
        """
        height, width = low.shape[-2:]
        halo = self.contract.halo
        if tile == WHOLE or halo is None:
            tile = max(height, width)
        return run_tiled(self._on_device, low, scale=self.scale, tile=tile, halo=halo or 0, advance=advance)

    @torch.inference_mode()
    def _on_device(self, low: Tensor) -> Tensor:
        # TF32, cuDNN's default, errs by tens of levels of a 16-bit picture.
        cudnn = torch.backends.cudnn
        # flags() turns cuDNN itself off unless told otherwise.
        with cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):
            return self._network(low.to(self.engine.device))

    def _plane(self, plane: Tensor, tile: int, advance: Callable[[float], None]) -> Tensor:
        """Enlarge `C H W`, C 1 or 3, giving as many channels back."""
        channels = plane.shape[0]
        if self.contract.channels == 1:
            return self.run(plane[:, None], tile=tile, advance=advance)[:, 0].clamp_(0, 1)
        low = plane.expand(self.contract.channels, -1, -1)[None]
        output = self.run(low, tile=tile, advance=advance)[0].clamp_(0, 1)
        return output if channels == self.contract.channels else output.mean(0, keepdim=True)
