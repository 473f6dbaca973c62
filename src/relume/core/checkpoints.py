"""Weights on disk: our own safetensors with everything that is needed to use them, and reading of others'.

A checkpoint is one safetensors file. Its header holds, as JSON under "relume",
which model and config it is, the surgery to replay before loading, how it was
trained, what was measured with it, and a SHA-256 over its tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import struct
import warnings
from codecs import getincrementaldecoder
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from relume.core.errors import CheckpointError
from relume.core.files import whole
from relume.core.pickles import refuse_bombs

FORMAT = 1
_KEY = "relume"
_WRAPPERS = (
    "params_ema", "params", "state_dict", "model_state_dict", "model", "net", "network", "generator", "sd",
)  # fmt: skip
# Headers of the largest models there are have some hundred kilobytes; a hostile one fills the memory.
_MOST_HEADER = 1 << 22
# In a hostile file a wrapper may hold itself.
_MOST_WRAPPERS = 8
_HEAD = 512
_PREFIXES = ("module.", "_orig_mod.", "model.", "net_g.", "generator.")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a checkpoint says of itself.

    Attributes:
        model: short name of the system ("cfsr").
        variant: the variant's name, or None where the config has none.
        config: the model's settings.
        steps: surgery to replay on the built model before the weights fit.
        trained: how the weights came about (pictures, steps, command, seed …; of authors' weights, "on_trust"
            has the settings that no weight shows).
        measured: figures measured with these weights, one entry a set and scale.
        recipe: the resolved recipe of the training, where we trained it.
        sha256: over names, types, shapes and bytes of all tensors; empty where they are from a file that is
            none of ours.
    """

    model: str
    variant: str | None
    config: Mapping[str, Any]
    steps: tuple[str, ...] = ()
    trained: Mapping[str, Any] = field(default_factory=dict)
    measured: tuple[Mapping[str, Any], ...] = ()
    recipe: Mapping[str, Any] | None = None
    sha256: str = ""


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], header: Header, *, overwrite: bool = True
) -> Header:
    """Write weights and header; return the header with its fingerprint.

    Raises:
        OutputExistsError: the file is there and `overwrite` is false.
        RelumeError: the folder cannot be written to.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    header = replace(header, sha256=fingerprint(plain))
    text = json.dumps({"format": FORMAT, **asdict(header)}, sort_keys=True)
    with whole(path, overwrite=overwrite) as partial:
        # Not `save_file`, whose own error hides from `whole` that the disk is full.
        partial.write_bytes(save(plain, metadata={_KEY: text}))
    return header


def is_safetensors(path: Path) -> bool:
    """Tell whether a file is to be read as safetensors: by its name, else by its first bytes."""
    if path.suffix.lower() == ".safetensors":
        return True
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file fails on a name too long
        return False
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False  # reading it in earnest will say why
    return len(head) == 9 and head[8:] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] < path.stat().st_size


def read_header(path: Path) -> Header | None:
    """Return what a safetensors file says of itself, or None where it is not ours; reads no tensor.

    Raises:
        CheckpointError: not a safetensors file, or a header of ours that cannot be understood.
    """
    _check_file(path)
    _check_header_size(path)
    try:
        # For PyTorch the file would be opened twice, and a training may have put another there in between.
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if _KEY not in metadata:
        return None
    try:
        values = json.loads(metadata[_KEY])
        if values.pop("format") != FORMAT:
            raise CheckpointError(
                f"{path} was written by another version of relume; convert the original again"
            )
        values["steps"] = tuple(values["steps"])
        values["measured"] = tuple(values["measured"])
        header = Header(**values)
        _check_header(header)
        return header
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a damaged relume header ({error}); get the file anew or convert the original again"
        ) from error


def _check_header(header: Header) -> None:
    """Refuse a header of which a part is of the wrong kind.

    Raises:
        TypeError: naming the part.
    """
    kinds: dict[str, Any] = {
        "model": str,
        "variant": (str, type(None)),
        "config": Mapping,
        "trained": Mapping,
        "recipe": (Mapping, type(None)),
        "sha256": str,
    }
    for name, kind in kinds.items():
        if not isinstance(getattr(header, name), kind):
            raise TypeError(f"{name} is {getattr(header, name)!r}")
    if not all(isinstance(step, str) for step in header.steps):
        raise TypeError(f"steps are {header.steps!r}")
    if not all(isinstance(entry, Mapping) for entry in header.measured):
        raise TypeError(f"measured is {header.measured!r}")


def read_checkpoint(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Read a checkpoint of ours, checking its tensors against the fingerprint.

    Raises:
        CheckpointError: not ours, or damaged.
    """
    header = read_header(path)
    if header is None:
        raise CheckpointError(
            f"{path} is not a relume checkpoint; turn it into one with: relume convert {path}"
        )
    state = read_tensors(path)
    if fingerprint(state) != header.sha256:
        raise CheckpointError(f"{path} is damaged: its weights do not match the fingerprint in its header")
    return header, state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of any weights file, ours or others', unwrapped to plain keys.

    A `.pth` is read with PyTorch's `weights_only`, which runs no code from the file.

    Raises:
        CheckpointError: missing, broken, unsafe, or without tensors.
    """
    _check_file(path)
    if is_safetensors(path):
        _check_header_size(path)
        try:
            with safe_open(path, "pt") as file:
                # safe_open gives no mapping, so its keys must be asked for.
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        # Where another file came there between the two times that it is opened, a RuntimeError says so.
        except (SafetensorError, OSError, RuntimeError) as error:
            raise _unreadable(path, error) from error
    _refuse_other_kinds(path)
    refuse_bombs(path)
    try:
        with warnings.catch_warnings():
            # What PyTorch warns of (an old or a TorchScript file), the errors below say in one line.
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is not a plain PyTorch weights file, and anything else could run code "
            f"when read ({_first_sentence(error)}); ask its author for a safetensors file"
        ) from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise CheckpointError(
            f"{path} cannot be read as PyTorch weights, it is truncated or of another kind "
            f"({_first_sentence(error)}); get the file anew"
        ) from error
    return _unwrap(loaded, path)


def _check_file(path: Path) -> None:
    # os.path, as Path.is_dir and Path.is_file fail on a name too long.
    if os.path.isdir(path):  # noqa: PTH112
        raise CheckpointError(f"{path} is a folder; name a weights file (.safetensors or .pth)")
    if not os.path.isfile(path):  # noqa: PTH113
        raise CheckpointError(f"there is no file {path}; check the path (models by name: relume models)")
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX file, which cannot be loaded; name the weights that it was made from"
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); get it anew from where it came")


def _refuse_other_kinds(path: Path) -> None:
    """Refuse what PyTorch never wrote, which its reader would tell in words that mean nothing to a user.

    Raises:
        CheckpointError: it begins as no weights file does; a text is told as such, as downloads leave some.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((b"PK\x03\x04", b"\x80")) or head[257:262] == b"ustar":
        return
    try:
        # Not to its end, as the cut may go through a character.
        text = getincrementaldecoder("utf-8")().decode(head).strip()
    except UnicodeDecodeError:
        text = "\0"
    if not all(char.isprintable() or char.isspace() for char in text):
        raise CheckpointError(
            f"{path} is no PyTorch weights file, by its first bytes; name a .pth or a .safetensors"
        )
    raise CheckpointError(
        f"{path} is a text, not weights: it begins with {' '.join(text.split())[:60]!r}; "
        "get the file anew, as a page or a note may have been saved in its place"
    )


def _check_header_size(path: Path) -> None:
    with path.open("rb") as file:
        claimed = int.from_bytes(file.read(8), "little")
    if claimed > _MOST_HEADER:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: its header claims {claimed} bytes, "
            f"at most {_MOST_HEADER} are read; get it anew from where it came"
        )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a readable safetensors file, it is truncated or of another kind ({error}); "
        "get it anew from where it came"
    )


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    wanted = re.search(r"GLOBAL (\S+)", text)
    if wanted:
        return f"it asks for {wanted[1]}"
    if text.isdigit():
        # Of a KeyError: the number under which PyTorch's reader has kept nothing.
        return "it refers to a part that it does not hold"
    reason = text.split("Please file an issue")[0].rsplit("WeightsUnpickler error:", 1)[-1].strip()
    return reason.split(". ")[0][:160]


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Take the weights out of the wrappers that training programs put round them."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a dictionary of weights")
    found = ((key, value) for key, value in loaded.items() if isinstance(value, Tensor))
    state = {key: value for key, value in found if isinstance(key, str)}
    if not state:
        raise CheckpointError(f"{path} holds no weights")
    for key, value in state.items():
        _check_plain(key, value, path)
    return unprefixed(state)


def unprefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state without the beginnings that wrappers of networks put before all its keys alike."""
    plain, stripped = dict(state), bool(state)
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in plain):
                plain = {key.removeprefix(prefix): value for key, value in plain.items()}
                stripped = True
    return plain


def _check_plain(key: str, tensor: Tensor, path: Path) -> None:
    """Refuse a tensor without values of its own: sparse, quantized, without data, or one value repeated."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: {key[:80]!r} is no plain tensor (sparse, quantized, or without values of its own); "
            "save it as a dense one"
        )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
