"""What is written about photos: a journal to go on from after a kill, and the index of the result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relume.core.errors import DataError, RelumeError
from relume.core.files import reason, take_alone, write_text
from relume.core.tables import csv_text, table_kind

INDEX = "index.json"
PIECES = "pieces"
"""The folder of the pieces, beside the index."""

JOURNAL = ".preparation.jsonl"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Photo:
    """What was found out about a photo.

    Attributes:
        source: its path below the folder that was looked through, with "/".
        bytes: size of the file.
        changed: when the file was last changed, nanoseconds.
        sha256: of the file; empty where it could not be read.
        kind: its format ("jpeg"); empty where it could not be told.
        height: pixels, upright.
        width: pixels, upright.
        channels: 1 gray, 3 RGB.
        bits: 8 or 16 a sample.
        quality: as `checks.jpeg_quality`; None where it is no JPEG.
        blockiness: as `checks.blockiness`.
        sharpness: as `checks.sharpness`, of its middle.
        likeness: `checks.likeness` as 16 hexadecimal digits.
        problem: why it cannot be used at all, None where it can.
    """

    source: str
    bytes: int
    changed: int
    sha256: str = ""
    kind: str = ""
    height: int = 0
    width: int = 0
    channels: int = 0
    bits: int = 0
    quality: int | None = None
    blockiness: float = 0.0
    sharpness: float = 0.0
    likeness: str = ""
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What became of a photo.

    Attributes:
        source: as of `Photo`.
        sha256: as of `Photo`, to tell that it is still the same.
        files: of its pieces, below the pieces folder, with "/".
        height: of each piece, pixels.
        width: of each piece, pixels.
        places: top and left of each piece in the photo.
        sharpness: of each piece.
        dropped: pieces that were not sharp enough.
        bytes: size of the files.
    """

    source: str
    sha256: str
    files: list[str]
    height: int
    width: int
    places: list[list[int]]
    sharpness: list[float]
    dropped: int
    bytes: int


class Journal:
    """Keeps what is done, line by line, so that a killed preparation goes on; a context manager.

    Args:
        folder: of the result; it must exist.
        settings: how photos are cut; a journal with others is refused.

    Attributes:
        photos: what is known already, by source.
        cuts: what is done already, by source.

    Raises:
        DataError: pieces that were cut otherwise lie here, or another preparation is at work.
        RelumeError: the journal cannot be read or written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / JOURNAL
        self.photos: dict[str, Photo] = {}
        self.cuts: dict[str, Cut] = {}
        self._settings = dict(settings)
        try:
            self._file = self.path.open("a+b")
        except OSError as error:
            raise RelumeError(f"{self.path}: cannot be written: {reason(error)}") from None
        try:
            busy = f"another preparation is at work in {folder}; wait for it or choose another -o"
            take_alone(self._file.fileno(), DataError(busy))
            self._read(folder)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, record: Photo | Cut) -> None:
        """Keep a record.

        Raises:
            RelumeError: the disk is full or the like.
        """
        kind = "photo" if isinstance(record, Photo) else "cut"
        known: dict[str, Any] = self.photos if isinstance(record, Photo) else self.cuts
        known[record.source] = record
        self._append({kind: asdict(record)})

    def drop_cut(self, source: str) -> None:
        """Forget what became of a photo, whose pieces are gone."""
        del self.cuts[source]
        self._append({"dropped": source})

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RelumeError(f"{self.path}: cannot be written: {reason(error)}") from None

    def _read(self, folder: Path) -> None:
        self._file.seek(0)
        sound = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break  # a kill has cut it short; what it told is done again
            try:
                self._understand(json.loads(line), first=number == 0, folder=folder)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise DataError(
                    f"{self.path} is damaged in line {number + 1} ({error}); "
                    f"remove {folder} or choose another -o"
                ) from None
            sound += len(line)
        self._file.truncate(sound)
        if not sound:
            self._append({"format": FORMAT, "cut": self._settings})

    def _understand(self, line: Mapping[str, Any], *, first: bool, folder: Path) -> None:
        if first:
            if line["format"] != FORMAT or line["cut"] != self._settings:
                theirs = ", ".join(
                    f"{name} {value}"
                    for name, value in line["cut"].items()
                    if value != self._settings.get(name)
                )
                raise DataError(
                    f"{folder} holds pieces that were cut otherwise ({theirs or 'by another version'}); "
                    f"give the same settings to go on, or choose another -o"
                )
        elif "photo" in line:
            photo = Photo(**line["photo"])
            self.photos[photo.source] = photo
        elif "cut" in line:
            cut = Cut(**line["cut"])
            self.cuts[cut.source] = cut
        else:
            self.cuts.pop(line["dropped"], None)


def rows(
    photos: Iterable[Photo], reasons: Mapping[str, str], cuts: Mapping[str, Cut]
) -> list[dict[str, Any]]:
    """Return one row a photo: its end, all that is known of it, and its pieces."""
    found = []
    for photo in photos:
        facts = asdict(photo)
        del facts["problem"], facts["changed"]
        cut = cuts.get(photo.source)
        pieces = None
        if cut is not None:
            pieces = asdict(cut)
            del pieces["source"], pieces["sha256"]
        why = reasons.get(photo.source)
        found.append({"state": "refused" if why else "taken", "reason": why, **facts, "pieces": pieces})
    return found


def write_index(path: Path, settings: Mapping[str, Any], found: list[dict[str, Any]]) -> None:
    """Write the index, whole or not at all.

    Raises:
        RelumeError: it cannot be written.
    """
    write_text(path, json.dumps({"format": FORMAT, "settings": dict(settings), "photos": found}, indent=1))


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What the index of a prepared folder tells of a photo that was cut.

    Attributes:
        source: as of `Photo`.
        sha256: as of `Photo`.
        height: of the photo, pixels.
        width: of the photo, pixels.
        files: as of `Cut`.
        places: as of `Cut`.
    """

    source: str
    sha256: str
    height: int
    width: int
    files: list[str]
    places: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Index:
    """What the index of a prepared folder tells a reader of its pieces.

    Attributes:
        form: as of `judging.PreparationConfig`.
        photos: those that were cut, in the order of names.
    """

    form: str
    photos: list[Indexed]


def read_index(folder: Path) -> Index | None:
    """Return the index of a prepared folder, None where it is none.

    A folder of photos may hold an `index.json` of its own: without our journal, only a number under
    "format" makes it ours.

    Raises:
        DataError: it is damaged or of another version, or the preparation was not finished.
    """
    path = folder / INDEX
    journal = (folder / JOURNAL).exists()
    if not path.is_file():
        if not journal:
            return None
        raise DataError(
            f"{folder} holds a preparation that was not finished; the same relume prepare goes on"
        )
    values: object = None
    problem = "it holds no JSON"
    try:
        values = json.loads(path.read_text())
        problem = 'it holds no "format"'
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, RecursionError):
        pass
    if not (isinstance(values, dict) and isinstance(values.get("format"), int)):
        if not journal:
            return None
        raise _damaged(path, problem)
    if values["format"] != FORMAT:
        raise DataError(f"{path} was written by another version of relume; prepare the photos anew")
    try:
        form = _text(values["settings"]["form"])
        return Index(form=form, photos=[_indexed(row) for row in values["photos"] if row["pieces"]])
    except KeyError as error:
        raise _damaged(path, f'it lacks "{error.args[0]}"') from None
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise _damaged(path, "a value is of another kind than is due") from None


def _indexed(row: Mapping[str, Any]) -> Indexed:
    pieces = row["pieces"]
    return Indexed(
        source=_text(row["source"]),
        sha256=_text(row["sha256"]),
        height=int(row["height"]),
        width=int(row["width"]),
        files=[_text(name) for name in pieces["files"]],
        places=[[int(top), int(left)] for top, left in pieces["places"]],
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(f"{path} is damaged: {problem}; run relume prepare again")


def write_table(path: Path, found: list[dict[str, Any]]) -> None:
    """Write the rows as .csv or .json, by the name.

    Raises:
        RelumeError: another ending, or it cannot be written.
    """
    if table_kind(path) == "json":
        text = json.dumps(found, indent=1)
    else:
        known = [field.name for field in fields(Photo) if field.name not in ("problem", "changed")]
        flat = ({**row, "pieces": len(row["pieces"]["places"]) if row["pieces"] else 0} for row in found)
        text = csv_text(flat, ["state", "reason", *known, "pieces"])
    write_text(path, text)


def check_table(path: Path, *, output: Path | None = None) -> None:
    """Check that a table may have this name; a table that is there already may be written anew.

    Args:
        path: of the table.
        output: of the preparation that it is to tell of, made or not; None where it only looks.

    Raises:
        RelumeError: it may not, or it would take the place of a preparation's own files.
    """
    table_kind(path)
    if not os.path.isdir(path.parent):  # noqa: PTH112 - Path.is_dir fails on a name too long
        raise RelumeError(f"{path}: the folder {path.parent} does not exist; create it or choose another")
    place = path.resolve()
    for folder in place.parents:
        own = (output is not None and folder == output.resolve()) or (folder / JOURNAL).exists()
        # Systems that take no note of capitals would write Index.JSON over the index.
        if own and place.relative_to(folder).parts[0].lower() in (INDEX, PIECES):
            raise RelumeError(
                f"{path}: --report would write among the preparation's own files ({INDEX}, {PIECES}) in "
                f"{folder}; choose another name"
            )
