"""Which files of a folder are pictures, by their names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from relume.core.pictures.formats import SUFFIXES


def pictures_in(
    folder: Path, *, deep: bool = False, endings: Collection[str] = tuple(SUFFIXES)
) -> list[Path]:
    """Return a folder's pictures in the order of their names.

    Hidden files (`._photo.png` of macOS) are no pictures of the user's, nor is what lies in hidden folders.

    Args:
        folder: Where to look.
        deep: Whether to look in the folders inside, at any depth.
        endings: Of their names, in lower case; `CUBES` for cubes.

    Raises:
        OSError: When the folder cannot be listed.
    """
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in endings
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
