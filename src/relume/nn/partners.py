"""Networks that are trained beside another, begun from weights that their authors published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from relume.core.checkpoints import read_tensors
from relume.core.config import Config
from relume.core.errors import CheckpointError

Partner = TypeVar("Partner", bound=nn.Module)
Recognise = Callable[[Mapping[str, Tensor]], tuple[Config, dict[str, Tensor]] | None]
"""Gives settings and state of an authors' checkpoint in our terms, or None where it is another's."""


def begin(partner: Partner, config: Config, start: str | None, recognise: Recognise) -> Partner:
    """Give a partner the weights that it is to start from.

    Args:
        partner: as it was built.
        config: its settings.
        start: the authors' weights file; None leaves it random.
        recognise: reads such a file.

    Returns:
        The partner.

    Raises:
        CheckpointError: the file cannot be read, or is of another kind of network or of other settings.
    """
    if start is None:
        return partner
    found = recognise(read_tensors(Path(start)))
    kind = type(partner).__name__
    if found is None:
        raise CheckpointError(f"{start} does not hold the weights of a {kind}; name another file to start it")
    theirs, state = found
    try:
        partner.load_state_dict(state)
    except RuntimeError as error:
        ours = config.model_dump()
        others = ", ".join(
            f"{name}={value}" for name, value in theirs.model_dump().items() if value != ours.get(name)
        )
        raise CheckpointError(
            f"{start} holds a {kind} of other settings ({others or 'not to be told'}); set these"
        ) from error
    return partner
