"""Layers whose kernels are mixed from a basis, by parameters that the user sets.

Maggioni, Tanay, Babiloni, McDonagh, Leonardis, CVPR 2023, arXiv:2304.00898, section 3. A layer holds K
kernels W and biases b, and mixes them by parameters ω that the user sets:

    m = A ω + c,    W = Σ_k m_k W_k,    b = Σ_k m_k b_k,

with A, c a small map of the layer's own ("mlp"), or m = ω ("linear"). The same ω weighs the losses of the
training (`train.objectives.multi_loss`), so that each kernel learns its part in each of them.

Networks of such layers, with a slider for the user, are made by `nn.slider`.

Shapes: B batch, P parameters, K kernels (a multiple of P), N M channels in and out, k kernel size.

Departs from the authors' code:
- A new layer starts with A repeating the parameters, c = 0, and all its kernels those of a plain layer, so
  that a network made tunable computes what it did until it is trained. Theirs start at random.
- `TunableLinear` has its weight as M × N, as the authors' own does. The PyTorch port multiplies by it the
  other way round, so only square ones work there.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.nn.depthwise import LargeDepthwiseConv2d, large_depthwise

CARD = Card(
    name="tunable",
    title="Tunable Convolutions with Parametric Multi-Loss Optimization",
    summary=(
        "Gives a network a slider: each convolution holds several kernels, and the same numbers that mix "
        "them weigh the losses in training, such as fidelity against smoothness. The paper claims that one "
        "network so follows the slider reliably between its objectives, better than earlier ways of "
        "control, at virtually no extra cost."
    ),
    when="When one network shall serve several tastes, from faithful to smooth, chosen when it is used.",
    venue="CVPR 2023",
    task=Task.RESTORATION,
    arxiv="2304.00898",
    code="https://github.com/mindspore-lab/mindediting",
    use=(
        "relume train cfsr-x4-photo --data photos/",
        """relume train cfsr-x4 --data photos/ --start cfsr-x4 """
        """--set 'surgery=["reparameterise", "tunable"]' """
        """--set 'objective={"name": "tunable", "aims": [["l1"], ["ssim"]]}'""",
        "relume upscale photo.jpg -n runs/cfsr-x4/cfsr-x4.safetensors --strength 0.3",
    ),
)

Mode = Literal["mlp", "linear"]


class Dial:
    """What all tunable layers of one network look at.

    Attributes:
        parameters: ω, `1 P`, of the latest run; None before the first.
    """

    parameters: Tensor | None = None


class TunableLayer(nn.Module):
    """What tunable layers have in common: parameters are mapped to the shares of the kernels.

    Args:
        parameters: P.
        expand: kernels for each parameter, K / P.
        mode: "mlp", or "linear" for shares that are the parameters; with `expand` above 1 always "mlp".

    Attributes:
        dial: where the parameters come from where `forward` is not given any.
    """

    def __init__(self, *, parameters: int, expand: int = 1, mode: Mode = "mlp") -> None:
        super().__init__()
        self.count, self.kernels = parameters, parameters * expand
        self.mlp: nn.Linear | None = None
        if mode == "mlp" or expand > 1:
            self.mlp = nn.Linear(parameters, self.kernels)
            with torch.no_grad():
                self.mlp.weight.copy_(torch.eye(parameters).repeat(expand, 1) / expand)
                self.mlp.bias.zero_()
        self.dial: Dial | None = None

    def shares(self, parameters: Tensor | None = None) -> Tensor:
        """Return m, `B K`, for ω, `B P`; for the dial's where none are given.

        Raises:
            ValueError: none are given and there is no dial, or there are not P of them.
        """
        if parameters is None and self.dial is not None:
            parameters = self.dial.parameters
        if parameters is None or parameters.ndim != 2 or parameters.shape[1] != self.count:
            found = "none" if parameters is None else f"{tuple(parameters.shape)}"
            raise ValueError(f"{type(self).__name__} needs parameters B {self.count}, got {found}")
        return parameters if self.mlp is None else self.mlp(parameters.to(self.mlp.weight.dtype))

    @abstractmethod
    def merged(self, parameters: Tensor) -> nn.Module:
        """Return what it is for given parameters, `1 P`, as a plain layer."""

    def mixed(self, basis: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Mix `1 K …` to `B …`; in full precision even where the network computes in less."""
        # On the device "meta", where a run is only counted, nothing can be computed in less.
        full = nullcontext() if basis.is_meta else torch.autocast(basis.device.type, enabled=False)
        with full:
            return torch.einsum("bk,k...->b...", self.shares(parameters).to(basis.dtype), basis[0])


class TunableModule(TunableLayer):
    """A tunable form of a plain layer with weight and bias.

    Attributes:
        weight: `1 K` and the plain layer's shape.
        bias: `1 K` and that of the plain layer's bias, or None.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def hold(self, plain: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
        """Make all K kernels those of a plain layer."""
        self.weight = nn.Parameter(self._basis(plain.weight))
        bias = None if plain.bias is None else nn.Parameter(self._basis(plain.bias))
        self.register_parameter("bias", bias)

    def absorb(self, plain: nn.Module) -> None:
        """Compute what a plain layer computes, at any strength of a slider: K kernels alike, the map anew."""
        with torch.no_grad():
            self.weight.copy_(self._basis(cast(Tensor, plain.weight)))
            if self.bias is not None:
                self.bias.copy_(self._basis(cast(Tensor, plain.bias)))
            if self.mlp is not None:
                expand = self.kernels // self.count
                self.mlp.weight.copy_(torch.eye(self.count).repeat(expand, 1) / expand)
                self.mlp.bias.zero_()

    def merged(self, parameters: Tensor) -> nn.Module:
        """Return the plain layer for given parameters, `1 P`; sums are formed in float64 and rounded once."""
        precise = copy.deepcopy(self).double()
        plain = self.plain().requires_grad_(False).to(self.weight)
        with torch.no_grad():
            plain.weight.copy_(precise.mixed(precise.weight, parameters.double())[0])
            if precise.bias is not None:
                plain.bias.copy_(precise.mixed(precise.bias, parameters.double())[0])
        return plain

    @abstractmethod
    def plain(self) -> Any:
        """Return a plain layer of the same sizes."""

    def _basis(self, tensor: Tensor) -> Tensor:
        return tensor.detach()[None].repeat(self.kernels, *[1] * tensor.ndim)[None]

    def _mixed_bias(self, parameters: Tensor | None) -> Tensor | None:
        return None if self.bias is None else self.mixed(self.bias, parameters)


class TunableConv2d(TunableModule):
    """A tunable `nn.Conv2d`: maps `B N H W` to `B M H' W'`.

    Args:
        like: the plain convolution: its sizes, and the weights that all kernels start with.
        parameters: P.
        expand: K / P.
        mode: see `TunableLayer`.
    """

    def __init__(self, like: nn.Conv2d, *, parameters: int = 2, expand: int = 1, mode: Mode = "mlp") -> None:
        super().__init__(parameters=parameters, expand=expand, mode=mode)
        self.kind, self.options = type(like), _options(like)
        self.hold(like)

    def forward(self, x: Tensor, parameters: Tensor | None = None) -> Tensor:
        options = self.options
        weight, bias = self.mixed(self.weight, parameters), self._mixed_bias(parameters)
        batch = _fitting(weight, x)
        if batch == 1 and bias is not None and issubclass(self.kind, LargeDepthwiseConv2d):
            return large_depthwise(x, weight[0], bias[0])
        padding = options["padding"]
        if options["padding_mode"] != "zeros":
            x, padding = F.pad(x, _sides(options), options["padding_mode"]), 0
        # One kernel a picture: pictures become groups of channels of one picture.
        output = F.conv2d(
            x.reshape(-1, batch * x.shape[1], *x.shape[2:]), weight.flatten(0, 1),
            None if bias is None else bias.flatten(), options["stride"], padding,
            options["dilation"], options["groups"] * batch,
        )  # fmt: skip
        return output.reshape(x.shape[0], -1, *output.shape[2:])

    def plain(self) -> nn.Conv2d:
        """Return a plain convolution of the same sizes."""
        if issubclass(self.kind, LargeDepthwiseConv2d):
            return LargeDepthwiseConv2d(self.options["in_channels"], self.options["kernel_size"][0])
        return nn.Conv2d(**self.options)


class TunableConvTranspose2d(TunableModule):
    """A tunable `nn.ConvTranspose2d`: maps `B N H W` to `B M H' W'`.

    Args:
        like: the plain layer: its sizes, and the weights that all kernels start with.
        parameters: P.
        expand: K / P.
        mode: see `TunableLayer`.
    """

    def __init__(
        self, like: nn.ConvTranspose2d, *, parameters: int = 2, expand: int = 1, mode: Mode = "mlp"
    ) -> None:
        super().__init__(parameters=parameters, expand=expand, mode=mode)
        self.options = {**_options(like), "output_padding": like.output_padding}
        self.hold(like)

    def forward(self, x: Tensor, parameters: Tensor | None = None) -> Tensor:
        options = self.options
        weight, bias = self.mixed(self.weight, parameters), self._mixed_bias(parameters)
        batch = _fitting(weight, x)
        output = F.conv_transpose2d(
            x.reshape(-1, batch * x.shape[1], *x.shape[2:]), weight.flatten(0, 1),
            None if bias is None else bias.flatten(), options["stride"], options["padding"],
            options["output_padding"], options["groups"] * batch, options["dilation"],
        )  # fmt: skip
        return output.reshape(x.shape[0], -1, *output.shape[2:])

    def plain(self) -> nn.ConvTranspose2d:
        """Return a plain transposed convolution of the same sizes."""
        return nn.ConvTranspose2d(**self.options)


class TunableLinear(TunableModule):
    """A tunable `nn.Linear`: maps `B … N` to `B … M`.

    Args:
        like: the plain layer: its sizes, and the weights that all kernels start with.
        parameters: P.
        expand: K / P.
        mode: see `TunableLayer`.
    """

    def __init__(self, like: nn.Linear, *, parameters: int = 2, expand: int = 1, mode: Mode = "mlp") -> None:
        super().__init__(parameters=parameters, expand=expand, mode=mode)
        self.hold(like)

    def forward(self, x: Tensor, parameters: Tensor | None = None) -> Tensor:
        weight, bias = self.mixed(self.weight, parameters), self._mixed_bias(parameters)  # B M N, B M
        if _fitting(weight, x) == 1:
            return F.linear(x, weight[0], None if bias is None else bias[0])
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        output = rows @ weight.mT
        if bias is not None:
            output = output + bias[:, None]
        return output.reshape(*x.shape[:-1], -1)

    def plain(self) -> nn.Linear:
        """Return a plain linear layer of the same sizes."""
        width, narrow = self.weight.shape[2:]
        return nn.Linear(narrow, width, bias=self.bias is not None)


class TunableParameter(TunableLayer):
    """A tunable tensor of any shape, such as the scale of a branch.

    Args:
        start: what all K tensors start with.
        parameters: P.
        expand: K / P.
        mode: see `TunableLayer`.
    """

    def __init__(self, start: Tensor, *, parameters: int = 2, expand: int = 1, mode: Mode = "mlp") -> None:
        super().__init__(parameters=parameters, expand=expand, mode=mode)
        self.data = nn.Parameter(start.detach()[None].repeat(self.kernels, *[1] * start.ndim)[None])

    def forward(self, parameters: Tensor | None = None) -> Tensor:
        """Return `B …` for ω, `B P`; for the dial's where none are given."""
        return self.mixed(self.data, parameters)

    def merged(self, parameters: Tensor) -> Constant:
        """Return the tensor for given parameters, `1 P`."""
        precise = copy.deepcopy(self).double()
        return Constant(precise.mixed(precise.data, parameters.double()).to(self.data.dtype))


class Constant(nn.Module):
    """A tensor in the place of a tunable one, `1 …`."""

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        self.data = nn.Parameter(data.detach(), requires_grad=False)

    def forward(self) -> Tensor:
        return self.data


def _options(layer: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    options = {name: getattr(layer, name) for name in names}
    return {**options, "padding_mode": layer.padding_mode, "bias": layer.bias is not None}


def _sides(options: Mapping[str, Any]) -> list[int]:
    """Return left, right, top and bottom of a convolution's padding."""
    sides: list[int] = []
    paddings: Sequence[Any] = options["padding"]
    for i in (1, 0):
        if options["padding"] == "same":
            total = options["dilation"][i] * (options["kernel_size"][i] - 1)
            sides += [total // 2, total - total // 2]
        elif options["padding"] == "valid":
            sides += [0, 0]
        else:
            sides += [paddings[i]] * 2
    return sides


def _fitting(weight: Tensor, x: Tensor) -> int:
    """Return for how many pictures there are kernels: one for all, or one for each.

    Raises:
        ValueError: neither.
    """
    if weight.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"parameters for {weight.shape[0]} pictures do not fit a batch of {x.shape[0]}")
    return weight.shape[0]
