"""Muon: steps along the orthogonal part of the momentum, for the weights that are matrices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_LEAST_NORM = 1e-7
_ADAM_EPSILON = 1e-8


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return U V' of each matrix's singular value decomposition U S V', nearly.

    Five steps of the Newton-Schulz iteration with the quintic of Jordan et al., "Muon: an optimizer for
    hidden layers in neural networks" (2024). It leaves singular values between about 0.7 and 1.2, which do.

    Args:
        matrices: (n, rows, columns), any range.
    """
    rows, columns = matrices.shape[-2:]
    flat = matrices.mT if rows > columns else matrices
    flat = flat / flat.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST_NORM)
    linear, cubic, quintic = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = flat @ flat.mT
        flat = linear * flat + (cubic * gram + quintic * gram @ gram) @ flat
    return flat.mT if rows > columns else flat


def matrices_of(network: nn.Module) -> Iterator[Tensor]:
    """Yield the weights that mix all inputs of a layer: of linear layers and of convolutions in one group."""
    for module in network.modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            yield module.weight


class Muon(Optimizer):
    """Muon for a network's matrices, Adam for all else: biases, norms, depthwise kernels, tables.

    A convolution's weight (out, in, height, width) is the matrix (out, in * height * width). A matrix's step
    is 0.2 * sqrt(its longer side) times the rate, so that it is as long as Adam's, and Adam's rates serve
    (Liu et al., arXiv:2502.16982, section 2.2). Matrices of one shape are done at once.

    Args:
        network: its parameters are updated.
        lr: rate of both.
        momentum: decay of the matrices' mean gradient (Nesterov's).
        betas: decays of Adam's moments.
        weight_decay: decoupled, for the matrices and all else.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        # A weight that two layers share is one parameter.
        matrices = dict.fromkeys(matrices_of(network))
        others = [parameter for parameter in network.parameters() if parameter not in matrices]
        groups = [{"params": list(matrices), "matrices": True}, {"params": others, "matrices": False}]
        super().__init__(
            [group for group in groups if group["params"]],
            # "fused" tells a resumed optimiser to have Adam's count of steps where the parameters are.
            {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "fused": True},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            if group["matrices"]:
                self._step_matrices(parameters, group["lr"], group["momentum"])
            else:
                self._step_others(parameters, group["lr"], *group["betas"])

    def _step_matrices(self, parameters: list[Tensor], rate: float, decay: float) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            by_shape[len(parameter), parameter[0].numel()].append(parameter)
        for (rows, columns), alike in by_shape.items():
            gradients = [_gradient(parameter) for parameter in alike]
            momenta = [self.state[parameter]["momentum"] for parameter in alike]
            torch._foreach_lerp_(momenta, gradients, 1 - decay)
            ahead = torch._foreach_lerp(gradients, momenta, decay)
            steps = orthogonalised(torch.stack([each.reshape(rows, columns) for each in ahead]))
            length = 0.2 * max(rows, columns) ** 0.5
            for parameter, step in zip(alike, steps, strict=True):
                parameter.sub_(step.view_as(parameter), alpha=rate * length)

    def _step_others(self, parameters: list[Tensor], rate: float, beta1: float, beta2: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "mean": torch.zeros_like(parameter),
                    "square": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adam(
            list(parameters),
            [_gradient(parameter) for parameter in parameters],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            fused=True,
            beta1=beta1,
            beta2=beta2,
            lr=rate,
            weight_decay=0.0,
            eps=_ADAM_EPSILON,
            maximize=False,
        )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # parameters without one are left out before
    return parameter.grad
