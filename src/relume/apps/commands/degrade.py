"""`relume degrade`: damage photos as training does, to see what a degradation makes of them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relume.apps.console import printable, progress_bar, say, say_error, say_note
from relume.core.errors import DataError, PictureError, RelumeError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from relume.core.pictures import Picture
    from relume.data.degradations.base import Degradation

_ENLARGING = 4
"""Scale where none is named, of degradations that make pictures smaller."""

_COLUMNS = 4


@dataclass(frozen=True)
class Damage:
    """A degradation as asked for.

    Attributes:
        name: of the degradation.
        scale: high-resolution pixels for each of the damaged picture, along a side.
        function: the degradation.
    """

    name: str
    scale: int
    function: Degradation


@dataclass(frozen=True)
class Draw:
    """One damaged picture to be made.

    Attributes:
        photo: the clean picture's file.
        seed: of all that is random.
        place: the damaged picture's file.
    """

    photo: Path
    seed: int
    place: Path


def degrade(
    photos: Annotated[list[Path], typer.Argument(help="Clean pictures.")],
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="What happens to them: haze, rain, motion-blur, bsrgan …")
    ],
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Of the first draw; each further one has the next number.")
    ] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe; may be repeated.")
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            "-s",
            min=1,
            max=16,
            help="How many times smaller the damaged picture is; default: 4, or 1 where the size is kept.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", "-d", min=1, max=64, help="Damaged pictures a photo.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file for one picture, else a folder; default: beside the photo."
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Where photos and draws are shown side by side; default: with the damaged pictures, and "
            "none where -o names a file."
        ),
    ] = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Make the damaged pictures alone.")] = False,
    sheet_side: Annotated[
        int, typer.Option(min=32, max=4096, help="Longest side of the pictures on the sheet, pixels.")
    ] = 512,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Damage photos by a degradation's name, once or in several draws, and show them on a sheet."""
    from relume.core.pictures import Picture, write
    from relume.core.sheets import contact_sheet

    damage = _damage(recipe, settings or [], scale)
    plan = _plan(photos, damage.name, seed=seed, draws=draws, output=output)
    if sheet and no_sheet:
        raise RelumeError(f"--no-sheet says that none is made, --sheet that it is {sheet}; leave one out")
    shown_at = None if no_sheet else sheet or _sheet_place(photos, damage.name, output)
    _check_outputs(photos, plan, shown_at, output, overwrite=overwrite)

    tiles: list[tuple[str, Tensor]] = []
    failures: dict[Path, str] = {}
    made: list[Draw] = []
    clean: Picture | None = None
    with progress_bar() as bar:
        task = bar.add_task("", total=len(plan))
        for index, draw in enumerate(plan):
            bar.update(task, description=printable(draw.photo.name), completed=index)
            if index == 0 or draw.photo != plan[index - 1].photo:
                clean = None
                try:
                    clean = _clean(draw.photo, damage)
                except (DataError, PictureError) as error:
                    if len(photos) == 1:
                        raise
                    failures[draw.photo] = str(error)
                    continue
                if clean.alpha is not None and damage.scale > 1:
                    say_note(f"{draw.photo.name}: transparency is left out, as the size changes")
                if shown_at:
                    tiles.append((f"{draw.photo.name}\n{clean.size}", _shown(clean.pixels, sheet_side)))
            if clean is None:
                continue
            damaged = _damaged(clean, damage, draw)
            _make_folder(draw.place.parent)
            write(damaged, draw.place, overwrite=overwrite)
            if shown_at:
                pixels = _shown(_magnified(damaged.pixels, damage.scale), sheet_side)
                tiles.append((f"{damage.name}, seed {draw.seed}\n{damaged.size}", pixels))
            made.append(draw)
        bar.update(task, completed=len(plan))
    for draw in made:
        say(f"written: {draw.place}{_told(damage, draw.seed)}")
    if shown_at and tiles:
        columns = min(_COLUMNS, len(tiles)) if len(photos) == 1 else draws + 1
        picture = Picture(pixels=_pixels(contact_sheet(tiles, columns=columns)))
        write(picture, shown_at, overwrite=overwrite, quality=80)
        say(f"written: {shown_at}")
    for failure in failures.values():
        say_error(failure)
    if failures:
        say_error(f"{len(failures)} of {len(set(photos))} photos could not be damaged")
        raise typer.Exit(1)


def _damage(name: str, settings: list[str], scale: int | None) -> Damage:
    """Build the degradation.

    Raises:
        UnknownNameError: no such degradation; the nearest is named.
        ConfigError: a setting or the scale does not fit it.
    """
    from relume.apps.settings import parse_degradation

    config = parse_degradation(name, settings)
    fitting = scale or (1 if config.keeps_size else _ENLARGING)
    return Damage(name, fitting, config.build(fitting))


def _plan(photos: list[Path], name: str, *, seed: int, draws: int, output: Path | None) -> list[Draw]:
    """Say which picture goes where; only looks, changes nothing.

    Raises:
        RelumeError: several pictures would go into one file.
    """
    several = len(photos) * draws > 1
    is_file = output is not None and _is_file(output)
    if is_file and several:
        raise RelumeError(f"{output} names a file, but several pictures need a folder; choose another -o")
    plan = []
    for number in range(len(photos) * draws):
        photo, own = photos[number // draws], seed + number
        # Lossless, so that no further damage comes on top.
        called = f"{photo.stem}_{name}" + (f"_seed{own}" if draws > 1 else "") + ".png"
        beside = output or photo.parent
        place = beside if is_file else beside / called
        plan.append(Draw(photo, own, place))
    return plan


def _is_file(output: Path) -> bool:
    """Tell whether -o names the damaged picture itself rather than its folder.

    Raises:
        PictureError: it names a picture of a format that cannot be written.
    """
    import mimetypes

    from PIL import Image

    from relume.core.pictures import SUFFIXES, format_of

    if output.is_dir():
        return False
    ending = output.suffix.lower()
    kind, _ = mimetypes.guess_type(f"a{ending}")
    if ending not in SUFFIXES and (
        (kind or "").startswith("image/") or ending in Image.registered_extensions()
    ):
        format_of(output)  # tells the endings that can be
    return ending in SUFFIXES


def _sheet_place(photos: list[Path], name: str, output: Path | None) -> Path | None:
    """Return where the sheet goes if nobody says; nowhere if somebody asked for just one file."""
    if output is not None and _is_file(output):
        return None
    folder = output or photos[0].parent
    return folder / (f"{photos[0].stem}_{name}_sheet.png" if len(photos) == 1 else f"{name}_sheet.png")


def _check_outputs(
    photos: list[Path], plan: list[Draw], sheet: Path | None, output: Path | None, *, overwrite: bool
) -> None:
    """Refuse before the work what would fail after it, or cost a photo.

    Raises:
        RelumeError: two files of one name, a name that stands for no format, or one that may not be written.
    """
    from relume.core.files import check_target
    from relume.core.pictures import format_of

    places = [draw.place for draw in plan] + ([sheet] if sheet else [])
    for place in places:
        format_of(place)
        # A folder that is yet to be made is free to be written to, if its own folder is there.
        made_first = place.parent == output and not place.parent.exists()
        check_target(place.parent if made_first else place, overwrite=overwrite)
    taken = Counter(os.path.realpath(path) for path in {os.path.realpath(photo) for photo in photos})
    taken.update(os.path.realpath(place) for place in places)
    clash = next((path for path, count in taken.items() if count > 1), None)
    if clash is not None:
        raise RelumeError(
            f"{clash} would be written twice, or over a photo; choose other names or another -o"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RelumeError(f"cannot make the folder {folder}: {error.strerror}; choose another -o") from error


def _clean(photo: Path, damage: Damage) -> Picture:
    """Read a photo that can be damaged so.

    Raises:
        PictureError: it cannot be read.
        DataError: it is too small, or what the degradation needs beside it (a depth map) is missing.
    """
    from relume.core.pictures import read, read_size
    from relume.data.degradations.base import Located

    if isinstance(damage.function, Located):
        damage.function.check(lambda: ((photo, read_size(photo)),))
    clean = read(photo)
    margin = damage.function.margin
    least = damage.scale * (2 * margin + 1)
    if min(clean.height, clean.width) < least:
        raise DataError(
            f"{photo} is {clean.size}, too small for {damage.name} at scale {damage.scale}, which needs "
            f"{least}x{least}; take a larger picture or milder settings"
        )
    return clean


def _damaged(clean: Picture, damage: Damage, draw: Draw) -> Picture:
    """Return the damaged picture, with all that the file held; sides are cut to a multiple of the scale."""
    import torch

    from relume.data.degradations.base import Place, located

    height, width = (side // damage.scale * damage.scale for side in clean.pixels.shape[1:])
    high = clean.pixels[:, :height, :width].unsqueeze(0)
    generator = torch.Generator().manual_seed(draw.seed)
    function = located(damage.function, Place.whole(draw.photo, (height, width)))
    low = function(high, generator=generator)[0]
    return clean.replace(pixels=low, alpha=clean.alpha if damage.scale == 1 else None)


def _told(damage: Damage, seed: int) -> str:
    """Return what was drawn, in brackets, of degradations that can tell."""
    import torch

    from relume.data.degradations.base import picture_generator
    from relume.data.degradations.drawing import Dice, DrawnDegradation, describe

    if not isinstance(damage.function, DrawnDegradation):
        return ""
    own = picture_generator(torch.Generator().manual_seed(seed))
    return f" ({describe(damage.function.draw(Dice(own)))})"


def _magnified(pixels: Tensor, times: int) -> Tensor:
    """Show each pixel of `C H W` as a square."""
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _shown(pixels: Tensor, side: int) -> Tensor:
    """Shrink `C H W` for the sheet, where its longer side is longer than `side`."""
    from relume.nn.resize import imresize

    height, width = pixels.shape[1:]
    if max(height, width) <= side:
        return pixels
    rows, columns = (max(1, round(each * side / max(height, width))) for each in (height, width))
    return imresize(pixels, height=rows, width=columns).clamp(0, 1)


def _pixels(sheet: Image) -> Tensor:
    """Return a sheet as `3 H W`."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(sheet, dtype=np.float32)).permute(2, 0, 1).div(255).contiguous()
