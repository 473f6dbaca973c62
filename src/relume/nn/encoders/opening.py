"""From a file or a model's name to an encoder."""

from __future__ import annotations

import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from relume.core.checkpoints import is_safetensors, read_header, read_tensors
from relume.core.errors import CheckpointError, ConfigError
from relume.nn.encoders.base import CompiledEncoder, Encoder, TappedEncoder
from relume.nn.encoders.vgg import VGG, VGGConfig, from_official
from relume.nn.network import Network

LoadNetwork = Callable[[str], nn.Module]
"""Gives a model by a variant's name or a weights file; what rooms above hand down, as models lie above."""

Normalise = Literal["auto", "imagenet", "none"]
"""How pictures are prepared: "imagenet" centres and scales them; "auto" does so for a VGG alone."""


def no_models(name: str) -> nn.Module:
    """Stand in where no models can be loaded.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"{name} is no encoder's file; a model by name can be used in a recipe only")


def open_encoder(
    source: str, layers: Iterable[str] = (), *, normalise: Normalise = "auto", load: LoadNetwork = no_models
) -> Encoder:
    """Open the encoder that a file or a name stands for.

    Args:
        source: a `torch.export` file (.pt2), a TorchScript file, the weights of a VGG (.safetensors or
            .pth), or what `load` takes: a variant's name or a model's weights.
        layers: which features are wanted, by name; what a model has, its kind says (`nn.encoders`).
        normalise: how pictures are prepared.
        load: gives models.

    Raises:
        CheckpointError: the file cannot be read, or is of no kind that is known.
        UnknownNameError: no model and no file of that name, or no layer.
        ConfigError: layers must be named and are not.
    """
    path, layers = Path(source), tuple(layers)
    imagenet = normalise == "imagenet"
    module = open_compiled(path)
    if module is not None:
        return CompiledEncoder(module, path.name, layers, imagenet=imagenet)
    if path.is_file() and (not is_safetensors(path) or read_header(path) is None):
        found = from_official(read_tensors(path))
        if found is not None:
            return _vgg(path, *found, layers, imagenet=normalise != "none")
    network = load(source)
    channels = network.contract.channels if isinstance(network, Network) else None
    return TappedEncoder(network, layers, imagenet=imagenet, channels=channels)


def open_compiled(path: Path) -> nn.Module | None:
    """Return the module in a `torch.export` file (.pt2) or a TorchScript file, or None where it is neither.

    Raises:
        CheckpointError: it is one and cannot be read.
    """
    if path.suffix == ".pt2":
        return _exported(path)
    return _scripted(path) if _is_torchscript(path) else None


def _vgg(
    path: Path, config: VGGConfig, state: dict[str, Tensor], layers: tuple[str, ...], *, imagenet: bool
) -> VGG:
    encoder = VGG(config, layers, imagenet=imagenet)
    try:
        encoder.module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} looks like a VGG but parts of it are missing or do not fit "
            f"({' '.join(str(error).split())[:160]}); get the file anew"
        ) from error
    return encoder


def _is_torchscript(path: Path) -> bool:
    """TorchScript is the only kind of PyTorch archive that brings code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _scripted(path: Path) -> nn.Module:
    try:
        # TorchScript's code can compute, and reach nothing else.
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise _unreadable(path, "TorchScript", error) from error
    return module.eval()


def _exported(path: Path) -> nn.Module:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; check the path of the encoder")
    try:
        _refuse_pickles(path)
        with warnings.catch_warnings(), _silent("torch.export"):
            warnings.simplefilter("ignore")
            return torch.export.load(path).module()
    except (
        zipfile.BadZipFile, AttributeError, LookupError, RuntimeError, TypeError, ValueError, OSError
    ) as error:  # fmt: skip
        raise _unreadable(path, "torch.export", error) from error


def _refuse_pickles(path: Path) -> None:
    """Refuse an exported file of which reading a part could run code: PyTorch would unpickle it.

    Raises:
        CheckpointError: it has such parts.
    """
    refusal = CheckpointError(
        f"{path} is refused: it holds objects besides tensors, and reading them could run code; export it "
        "from plain tensors"
    )
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            part = name.partition("/")[2]
            if part.startswith("data/") and part.endswith("_config.json"):
                entries = json.loads(archive.read(name)).get("config", {})
                if any(entry.get("use_pickle") for entry in entries.values()):
                    raise refusal
            if part.startswith("data/constants/custom_obj"):
                raise refusal
            if part.startswith("data/sample_inputs/"):
                try:
                    torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
                except Exception as error:  # whatever it is, PyTorch would then unpickle it
                    raise refusal from error


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library from printing the traceback of an error that we tell in one line."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _unreadable(path: Path, kind: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(f"{path} cannot be read as a {kind} file ({reason[0][:160]}); make the file anew")
