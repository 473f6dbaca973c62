"""Several pictures from one network: what was lost cannot be known, so it offers several guesses.

Liu, Qiao, Dou, arXiv:2208.13029, section 3; the training is `train.strategies.multi_output`. The last
convolution gives n pictures' worth of channels, x_1 … x_n. With x the input and K pictures in all:

    separate:  y_k = x + x_k                              K = n
    combined:  y_ij = x + (x_i + x_j) / 2, j ≤ i          K = n (n + 1) / 2, in the order 11, 21, 22, 31 …

Combining ("parameter multiplexing") costs no parameters, and all heads stay in use: a head that is never the
best is part of others that are.

Shapes: B batch, C picture channels, n heads, K pictures, H W.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.config import Config
from relume.nn.network import Network

_LATEST = 0.01
"""Share of the latest batch in a head's record."""


class HeadsConfig(Config):
    """How many pictures a network makes, and which one it shows.

    Attributes:
        count: n.
        combined: whether means of two are pictures too.
        shown: which picture is the output, from 0; None: the one of the best record (`Heads.record`).
    """

    count: PositiveInt = 1
    combined: bool = False
    shown: NonNegativeInt | None = None

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The heads whose mean each of the K pictures is."""
        if self.combined:
            return tuple((i, j) for i in range(self.count) for j in range(i + 1))
        return tuple((i, i) for i in range(self.count))

    @model_validator(mode="after")
    def _fits(self) -> HeadsConfig:
        if self.shown is not None and self.shown >= len(self.pairs):
            raise ValueError(
                f"there are {len(self.pairs)} pictures, so shown is at most {len(self.pairs) - 1}"
            )
        return self


class Heads(nn.Module):
    """What follows a network's last convolution: all pictures, and which of them is shown.

    Attributes:
        config: how many.
        record: each picture's mean loss so far, `K`, less is better; a training keeps it, or
            `train.strategies.multi_output.judge`. All zeros, as from a fresh network, means the first.
            A network of one picture has none.
    """

    record: Tensor

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        pictures = len(config.pairs)
        if pictures > 1:
            self.register_buffer("record", torch.zeros(pictures))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Begin without a record where there is none, as in the authors' checkpoints."""
        if len(self.config.pairs) > 1:
            state_dict.setdefault(f"{prefix}record", torch.zeros_like(self.record))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, residual: Tensor, image: Tensor) -> Tensor:
        """Return all pictures.

        Args:
            residual: what the last convolution gives, `B nC H W`.
            image: the input, `B C H W`.

        Returns:
            `B K C H W`.
        """
        each = residual.unflatten(1, (self.config.count, -1))
        if self.config.combined:
            each = torch.stack([(each[:, i] + each[:, j]) / 2 for i, j in self.config.pairs], 1)
        return each + image[:, None]

    def shown(self, pictures: Tensor) -> Tensor:
        """Choose one of all pictures: `B K C H W` to `B C H W`."""
        if self.config.shown is not None or len(self.config.pairs) == 1:
            return pictures[:, self.config.shown or 0]
        return pictures.index_select(1, self.record.argmin(0, keepdim=True))[:, 0]

    @torch.no_grad()
    def remember(self, losses: Tensor) -> None:
        """Take the mean losses of a batch's pictures, `K`, into the record."""
        if len(self.config.pairs) > 1:
            self.record.lerp_(losses.to(self.record), _LATEST)

    @torch.no_grad()
    def settle(self, losses: Tensor) -> None:
        """Replace the record by mean losses, `K`, of a whole set."""
        if len(self.config.pairs) > 1:
            self.record.copy_(losses)

    @torch.no_grad()
    def alone(self, last: nn.Conv2d) -> nn.Conv2d:
        """Return the convolution that gives the shown picture only: a mean of heads is a mean of kernels."""
        index = self.config.shown if self.config.shown is not None else int(self.record.argmin())
        i, j = self.config.pairs[index]
        single = copy.deepcopy(last)
        single.out_channels //= self.config.count
        for name, values in last.named_parameters():
            heads = values.unflatten(0, (self.config.count, -1))
            setattr(single, name, nn.Parameter((heads[i] + heads[j]) / 2, requires_grad=values.requires_grad))
        return single


class ManyHeaded(Network):
    """A network whose last convolution, `ending`, is followed by `heads`.

    Attributes:
        heads: all pictures, and which is shown.
        ending: the last convolution, to n · C channels.
    """

    heads: Heads
    ending: nn.Conv2d

    def stages(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return all pictures of each of its stages, `B K C H W`; the last stage's are the result."""
        raise NotImplementedError

    def every(self, x: Tensor) -> Tensor:
        """Return all pictures: `B C H W` to `B K C H W`."""
        return self.stages(x)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the shown picture: `B C H W` to `B C H W`."""
        return self.heads.shown(self.every(x))

    def folded(self) -> nn.Module:
        """Return the network of the shown picture alone."""
        if len(self.heads.config.pairs) == 1:
            return self
        # What is replaced is not copied first; nothing else is changed.
        single = copy.copy(self)
        single._modules = {
            **self._modules,
            "ending": self.heads.alone(self.ending),
            "heads": Heads(HeadsConfig()),
        }
        return single
