"""DCPT: a restoration network first learns to tell what happened to pictures, then to restore them.

Hu, Jin, Yao, Lu, ICLR 2025, arXiv:2501.15510, with what the authors' code adds
(https://github.com/MILab-PKU/dcpt). Pre-training, for each batch of inputs, targets and kinds of damage:

1. The network gives targets back as they are: distance(network(target), target) keeps it a restorer.
2. It runs on the inputs, and features are taken from several of its layers, in the authors' code those of the
   decoder; a light classifier (`nn.classifier`), which sees nothing else, says what happened.
3. Network and classifier are trained by the sum of the distance and the focal loss (Lin et al., ICCV 2017,
   arXiv:1708.02002) of the right kind y: mean -(1 - p_y)^γ log p_y.

Fine-tuning is any training that starts from the network's weights; the classifier has done its work then.
`objectives.dcpt` puts pre-training together, the degradation "one-of" makes the batches.

Shapes: B batch, K kinds.

Departs from the authors' code:
- Their training is not released, and with it which layers, weight and γ they used; the code's own default is
  γ = 0, which is taken here too: kinds are drawn evenly, so that none is rare.
- Targets and inputs go through the network as one batch of twice the size; the same for networks whose layers
  do not look at the batch.
- The classifier computes its logits twice, for the network's gradient and for its own; both see the same
  weights, so the steps are those of one sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.core.variants import renamed_state
from relume.nn.classifier import FeatureClassifierConfig

CARD = Card(
    name="dcpt",
    title="Universal Image Restoration Pre-training via Degradation Classification",
    summary=(
        "A way to pre-train any restoration network: before it learns to restore, it learns to tell which "
        "damage a picture has suffered, by a light classifier of its features. The paper claims up to 2.55 "
        "dB more in restoring ten kinds of damage by one network, and 6.53 dB more where kinds are mixed."
    ),
    when="Before a network learns to restore several kinds of damage at once.",
    venue="ICLR 2025",
    task=Task.RESTORATION,
    arxiv="2501.15510",
    code="https://github.com/MILab-PKU/dcpt",
    use=(
        "relume train promptir --data photos/ --budget pretrain",
        "relume train nafnet-small --data photos/ --set degradation=one-of --set objective=dcpt "
        """--set 'objective.layers={"decoders.2": 16, "decoders.1": 32, "decoders.0": 64}'""",
    ),
)


def focal_loss(logits: Tensor, kinds: Tensor, *, focus: float = 0.0) -> Tensor:
    """Return mean -(1 - p)^γ log p of the right kinds' probabilities p.

    Args:
        logits: `B K`.
        kinds: the right ones, `B` of int64.
        focus: γ, how little those count that are right already; 0 is cross entropy.
    """
    right = F.log_softmax(logits, 1).gather(1, kinds[:, None])[:, 0]
    if focus == 0:
        return -right.mean()
    # Not above 1, by which rounding would make a negative base.
    return -((1 - right.exp()).clamp(min=0) ** focus * right).mean()


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^mixing_weights$", "shares"),
    (r"^conv_embed\.0\.", "embed."),
    (r"^conv_embed\.1\.", "embed_norm."),
    (r"^bottleneck_layers\.", "stages."),
    (r"^downsample_layers\.(\d+)\.0\.", r"downs.\1."),
    (r"^last_stage\.", "last."),
    (r"^fc\.", "decide."),
    (r"\.conv1\.norm\.", ".expand_norm."),
    (r"\.conv2\.norm\.", ".spread_norm."),
    (r"\.conv3\.norm\.", ".contract_norm."),
    (r"\.conv1\.", ".expand."),
    (r"\.conv2\.", ".spread."),
    (r"\.conv3\.", ".contract."),
)


def classifier_from_official(
    state: Mapping[str, Tensor],
) -> tuple[FeatureClassifierConfig, dict[str, Tensor]] | None:
    """Recognise the authors' classifier, which sees features alone, or the picture too.

    Returns:
        Our config and state, or None where the keys are not the classifier's.
    """
    if "mixing_weights" not in state or "bottleneck_layers.0.0.conv1.weight" not in state:
        return None
    ours = renamed_state(state, _RENAMES)
    layers = range(len(ours["shares"]))
    config = FeatureClassifierConfig(
        widths=tuple(ours[f"stages.{index}.0.expand.weight"].shape[1] for index in layers),
        classes=len(ours["decide.bias"]),
        blocks=sum(bool(re.fullmatch(r"stages\.0\.\d+\.expand\.weight", key)) for key in ours),
        picture="embed.weight" in ours,
    )
    return config, ours


def right_share(logits: Tensor, kinds: Tensor) -> Tensor:
    """Return the share of pictures, 0..1, whose kind has the highest logit."""
    return (logits.argmax(1) == kinds).to(torch.float32).mean()
