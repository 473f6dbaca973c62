"""Which output belongs to which input, and where a batch keeps its manifest."""

# A million Path objects are slow to make.
# ruff: noqa: PTH112, PTH118, PTH119, PTH122

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relume.core.errors import PictureError, RelumeError
from relume.core.pictures import CUBES, SUFFIXES, format_of
from relume.infer.batch.inputs import Found, is_search
from relume.infer.batch.manifest import FILE_NAME
from relume.infer.batch.planning import Wish

if TYPE_CHECKING:
    from relume.infer.targets import Target


_KNOWN = {**SUFFIXES, **CUBES}


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """Where outputs go.

    Attributes:
        output: a file or folder; None for beside each input.
        is_folder: whether `output` is a folder, which need not be there yet.
        suffix: added to the stem of each output, unless `output` is a file.
        ending: of the outputs (".png"); None takes each input's.
    """

    output: Path | None
    is_folder: bool
    suffix: str
    ending: str | None

    def of(self, found: Found) -> str:
        """Return where an input's output goes; what was found in folders lies likewise below a folder."""
        if self.output is not None and not self.is_folder:
            return str(self.output)
        folder, name = os.path.split(found.path)
        if self.output is not None:
            folder = os.path.join(self.output, found.folder)
        stem, ending = os.path.splitext(name)
        # What has no known ending is judged by its content when read; PNG keeps all that it may hold.
        kept = ending if ending.lower() in _KNOWN else ".png"
        return os.path.join(folder, f"{stem}{self.suffix}{self.ending or kept}")

    def wishes(self, found: Iterable[Found]) -> Iterator[Wish]:
        """Yield a wish for each input."""
        for each in found:
            # Without a suffix an output cannot be told from an input by its name.
            search = each.search if self.suffix else None
            yield Wish(each.path, self.of(each), each.size, each.mtime_ns, search)


def destinations(
    output: Path | None, *, several: bool, suffix: str, format: str | None,  # noqa: A002
) -> Destinations:  # fmt: skip
    """Decide where outputs go; only looks, changes nothing.

    Args:
        output: a file for one picture, a folder for several, None for beside the inputs.
        several: whether more than one picture may come.
        suffix: added to the stem of each output, unless `output` names the file.
        format: of the outputs; None takes each input's.

    Raises:
        RelumeError: the request makes no sense (a bad format or suffix, many into one file).
    """
    ending = None if format is None else _ending(format)
    if os.path.basename(f"a{suffix}") != f"a{suffix}":
        raise RelumeError(f"--suffix {suffix!r} holds a folder; it is a part of a name, use -o for folders")
    is_folder = output is not None and _is_folder(output, several=several)
    if output is not None and not is_folder and ending and format_of(output) != _KNOWN[ending]:
        raise RelumeError(
            f"{output} is not named as the format {format} is; leave out one of -o and --format"
        )
    return Destinations(output=output, is_folder=is_folder, suffix=suffix, ending=ending)


def manifest_place(given: Sequence[Path], output: Path | None) -> Path:
    """Return where the manifest of a batch lies: with the outputs, else with the first inputs."""
    if output is not None:
        return output / FILE_NAME
    first = given[0]
    while is_search(first) and not os.path.isdir(first):  # a pattern: the folder that it begins in
        first = first.parent
    return (first if os.path.isdir(first) else first.parent) / FILE_NAME


def default_suffix(target: Target | None, scale: int) -> str:
    """Return what an output beside its input is called by: "_x4", "_w1920", "_1920x1080" and the like.

    Args:
        target: the size asked for; None for the model's own.
        scale: of the model.
    """
    if target is None:
        return f"_x{scale}"
    if target.scale is not None:
        return f"_x{target.scale:g}"
    if target.megapixels is not None:
        return f"_{target.megapixels:g}mp"
    if target.fit is not None:
        return f"_fit{target.fit[0]}x{target.fit[1]}"
    if target.width is not None and target.height is not None:
        return f"_{target.width}x{target.height}"
    return f"_w{target.width}" if target.width is not None else f"_h{target.height}"


def _is_folder(output: Path, *, several: bool) -> bool:
    """Tell whether -o means a folder.

    Raises:
        RelumeError: it cannot be one, but must; or it could not be made.
    """
    if os.path.isdir(output):
        return True
    exists = os.path.lexists(output)
    if several and (exists or output.suffix.lower() in _KNOWN):
        what = "is a file" if exists else "names a file"
        raise RelumeError(f"{output} {what}, but several pictures need a folder; choose another -o")
    if not several and (exists or output.suffix):
        return False
    if not os.path.isdir(output.parent):
        raise RelumeError(
            f"cannot make the folder {output}: there is no folder {output.parent}; make it first"
        )
    return True


def _ending(format: str) -> str:  # noqa: A002
    kind = _KNOWN.get(f".{format.lower()}")
    if kind is None:
        raise PictureError(f"unknown format {format!r}; known: {', '.join(sorted(set(_KNOWN.values())))}")
    return {"jpeg": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")
