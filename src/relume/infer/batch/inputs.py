"""Find pictures: files, folders (to any depth) and patterns, one by one in a steady order."""

# A million Path objects are slow to make.
# ruff: noqa: PTH112, PTH113, PTH116, PTH118, PTH120, PTH122

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from relume.core.files import reason
from relume.infer.batch.database import connect_to_read, telling
from relume.infer.batch.manifest import FILE_NAME, Manifest, made_in


class Found(NamedTuple):
    """One picture.

    Attributes:
        path: as the user's own words lead to it.
        folder: its folder's path below the folder or pattern that was named, "" at its top.
        size, mtime_ns: of the file, None where it cannot be looked at (it was named, and will fail).
        search: number of the folder or pattern that it was found by, None when it was named itself.
    """

    path: str
    folder: str
    size: int | None
    mtime_ns: int | None
    search: int | None


def is_search(wish: str | Path) -> bool:
    """Tell whether a folder or a pattern is named, rather than one picture."""
    wish = str(wish)
    return os.path.isdir(wish) or _is_pattern(wish)


class Outputs:
    """Which files in folders are outputs of ours, by every manifest that lies near."""

    def __init__(self, manifest: Manifest | None) -> None:
        self._manifest = manifest
        self._own = manifest and manifest.path and os.path.realpath(manifest.path)
        self._others: dict[str, sqlite3.Connection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for base in self._others.values():
            base.close()

    def meet(self, folder: str) -> None:
        """Take a manifest in this folder, if there is one, into account."""
        path = os.path.join(folder, FILE_NAME)
        if path != self._own and path not in self._others and os.path.isfile(path):
            self._others[path] = connect_to_read(Path(path))

    def names(self, folder: str, *, within: str) -> set[str]:
        """Return the names in a folder that were made from inputs in `within` or deeper; real paths both."""
        found = set() if self._manifest is None else self._manifest.made_in(folder, within=within)
        for path, base in self._others.items():
            with telling(Path(path)):
                found |= made_in(base, os.path.dirname(path), folder, within=within)
        return found


class Finder:
    """Looks for pictures by their names.

    Hidden files (`._photo.png` of macOS) and folders are passed over, as are outputs of earlier runs over the
    same folder; links to folders are not followed.

    Args:
        endings: of pictures, in lower case (".jpg").
        deep: whether to look in folders inside folders.
        manifest: of the batch; others that lie in the folders, or above, are asked as well.
        tell: told each line on what cannot be looked through, or holds nothing.
        expectant: whether nothing need be there yet, so that this is not worth a line.
    """

    def __init__(
        self,
        endings: Collection[str],
        *,
        deep: bool,
        manifest: Manifest | None,
        tell: Callable[[str], None],
        expectant: bool = False,
    ) -> None:
        self._endings = frozenset(endings)
        self._deep = deep
        self._manifest = manifest
        self._tell = tell
        self._expectant = expectant
        self._told = 0

    def find(self, given: Iterable[str | Path]) -> Iterator[Found]:
        """Yield the pictures that files, folders and patterns stand for; all that is named comes, once each.

        Raises:
            ManifestError: a manifest that lies there cannot be asked.
        """
        for number, wish in enumerate(str(each) for each in given):
            if os.path.isdir(wish):
                found: Iterator[Found] = self._search("" if wish == os.curdir else wish, number)
            elif _is_pattern(wish):
                found = self._match(wish, number)
            else:
                size, mtime_ns = _look(wish) or (None, None)
                yield Found(wish, "", size, mtime_ns, None)
                continue
            told = self._told
            first = next(found, None)
            if first is None and self._told == told and not self._expectant:
                what = "holds" if os.path.isdir(wish) else "matches"
                self._tell(f"{wish}: {what} no picture ({', '.join(sorted(self._endings))})")
            if first is not None:
                yield first
                yield from found

    def _search(self, root: str, number: int) -> Iterator[Found]:
        real = os.path.realpath(root)
        with Outputs(self._manifest) as outputs:
            above = real
            while (higher := os.path.dirname(above)) != above:
                above = higher
                outputs.meet(above)
            folders = [""]
            while folders:
                inside = folders.pop()
                names, inner = self._list(os.path.join(root, inside), deep=self._deep)
                outputs.meet(os.path.normpath(os.path.join(real, inside)))
                made = outputs.names(os.path.normpath(os.path.join(real, inside)), within=real)
                for name in names:
                    path = os.path.join(root, inside, name)
                    if name not in made and (there := _look(path)):
                        yield Found(path, inside, *there, number)
                folders += [os.path.join(inside, name) for name in reversed(inner)]

    def _list(self, folder: str, *, deep: bool) -> tuple[list[str], list[str]]:
        """Return the names of a folder's pictures, and of the folders in it that are to be searched."""
        names, inner = [], []
        try:
            with os.scandir(folder or os.curdir) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if deep and entry.is_dir(follow_symlinks=False):
                        inner.append(entry.name)
                    elif os.path.splitext(entry.name)[1].lower() in self._endings:
                        names.append(entry.name)
        except OSError as error:
            self._tell(f"{folder.rstrip(os.sep)}: cannot be listed: {reason(error)}")
            self._told += 1
        return sorted(names), sorted(inner)

    def _match(self, pattern: str, number: int) -> Iterator[Found]:
        """Yield what a pattern stands for; `**` is any number of folders, none too."""
        base, parts = pattern, list[str]()
        while glob.has_magic(base):
            base, part = os.path.split(base)
            if part != "**" or parts[:1] != ["**"]:
                parts.insert(0, part)
        real = os.path.realpath(base)
        with Outputs(self._manifest) as outputs:
            for inside, names in self._matching(base, "", parts):
                place = os.path.normpath(os.path.join(real, inside))
                outputs.meet(place)
                made = outputs.names(place, within=real)
                for name in names:
                    path = os.path.join(base, inside, name)
                    if name not in made and (there := _look(path)):
                        yield Found(path, inside, *there, number)

    def _matching(self, base: str, inside: str, parts: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield folders below `base` with the names in them that fit the parts of a pattern."""
        part, *rest = parts
        names, inner = self._list(os.path.join(base, inside), deep=True)
        if not rest:
            yield inside, names if part == "**" else fnmatch.filter(names, part)
        elif part == "**":
            yield from self._matching(base, inside, rest)
        if part != "**":
            inner = fnmatch.filter(inner, part) if rest else []
        for name in inner:
            yield from self._matching(base, os.path.join(inside, name), parts if part == "**" else rest)


def _is_pattern(wish: str) -> bool:
    # A name that is there is meant itself, whatever letters it has.
    return glob.has_magic(wish) and not os.path.lexists(wish)


def _look(path: str) -> tuple[int, int] | None:
    """Return size and time of change of an ordinary file, None for anything else."""
    with contextlib.suppress(OSError, ValueError):
        there = os.stat(path)
        if stat.S_ISREG(there.st_mode):
            return there.st_size, there.st_mtime_ns
    return None
