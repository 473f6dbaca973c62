"""Adversarial losses of logits: what network and discriminator each minimise.

With r and f the discriminator's logits of real pictures (targets) and fake ones (outputs), σ the sigmoid,
s(t) = log(1 + eᵗ) = -log σ(-t), and means over the batch and all places of a logit map:

    vanilla        discriminator  mean s(-r) + mean s(f)
                   network        mean s(-f)            (Goodfellow et al., arXiv:1406.2661, non-saturating)
    relativistic   r̃ = r - mean f,  f̃ = f - mean r      (Jolicoeur-Martineau, arXiv:1807.00734; ESRGAN)
                   discriminator  mean s(-r̃) + mean s(f̃)
                   network        mean s(r̃) + mean s(-f̃)
    hinge          discriminator  mean max(0, 1 - r) + mean max(0, 1 + f)
                   network        -mean f               (Lim & Ye, arXiv:1705.02894)
    least-squares  discriminator  ½ mean (r - 1)² + ½ mean f²
                   network        ½ mean (f - 1)²       (Mao et al., arXiv:1611.04076)

Papers' sums are kept as they are; ESRGAN's code halves both of "relativistic".
Ranges: from 0 up, but the network's hinge, which is any number. Shapes: r and f any, of a floating type.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["vanilla", "relativistic", "hinge", "least-squares"]


def network_loss(kind: Kind, fake: Tensor, real: Tensor) -> Tensor:
    """Return what the network minimises; only "relativistic" looks at the real logits."""
    match kind:
        case "vanilla":
            return F.softplus(-fake).mean()
        case "relativistic":
            return F.softplus(real - fake.mean()).mean() + F.softplus(real.mean() - fake).mean()
        case "hinge":
            return -fake.mean()
        case "least-squares":
            return (fake - 1).square().mean() / 2


def discriminator_loss(kind: Kind, fake: Tensor, real: Tensor) -> Tensor:
    """Return what the discriminator minimises."""
    match kind:
        case "vanilla":
            return F.softplus(-real).mean() + F.softplus(fake).mean()
        case "relativistic":
            return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()
        case "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        case "least-squares":
            return (real - 1).square().mean() / 2 + fake.square().mean() / 2


def gradient_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Return R1, the mean squared norm of the logits' gradient at real pictures.

    Mescheder, Geiger, Nowozin, arXiv:1801.04406, eq. 9 without γ/2: mean over pictures of |∇ D(real)|²,
    D the sum of a picture's logits. It is differentiable in the discriminator's parameters.
    """
    pictures = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(pictures).sum(), pictures, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
