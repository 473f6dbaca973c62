"""PyTorch's weights files, looked through before PyTorch reads them; nothing is unpickled here.

PyTorch's own `weights_only` lets no code run. But a small file can still fill the
memory, or keep PyTorch busy without end; such files are refused.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from relume.core.errors import CheckpointError

_ZIP = b"PK\x03\x04"
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# NotImplementedError is a RuntimeError.
_DAMAGED = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error, zlib.error)
# What PyTorch wrote before it used zip: three pickles about the file, one of tensors, one of their keys.
_PICKLES = 5
# PyTorch 2 searches its messages, which quote the file, in a time that grows with the square of this.
_LONGEST_WORD = 20_000
_TOO_LONG = re.compile(rf"\S{{{_LONGEST_WORD}}}")


def refuse_bombs(path: Path) -> None:
    """Refuse a `.pth` that would unpack to more than it is, or that PyTorch would take for ever to read.

    What is damaged in other ways is left to PyTorch to judge.

    Raises:
        CheckpointError: it is a bomb, or an archive that cannot be read.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == _ZIP
        file.seek(0)
        if not zipped:
            for _ in range(_PICKLES):
                if not _refuse_long_words(file, path):
                    return
            return
    try:
        for pickled in _pickles_of_archive(path):
            _refuse_long_words(io.BytesIO(pickled), path)
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} cannot be read as PyTorch weights, it is truncated or of another kind ({error}); "
            "get the file anew"
        ) from error


def _pickles_of_archive(path: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > path.stat().st_size:
            raise CheckpointError(
                f"{path} is refused: it would unpack to {claimed} bytes, more than the file has, "
                "which PyTorch never writes; ask its author for a safetensors file"
            )
        for member in archive.infolist():
            # PyTorch packs by "deflate" or not at all, and reads nothing else.
            if member.filename.endswith(".pkl") and member.compress_type in _READ:
                yield archive.read(member)


class _Bounded:
    """A file that refuses to be read farther than it goes, before memory is taken for that."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.readline, self.tell = file.readline, file.tell
        here = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(here)

    def read(self, count: int) -> bytes:
        """Return so many bytes, fewer at the very end.

        Raises:
            CheckpointError: far more are asked for than there are.
        """
        left = self._end - self._file.tell()
        if count > left + _LONGEST_WORD:
            raise CheckpointError(
                f"{self._path} is damaged or a bomb: it claims {count} bytes where {left} are left; "
                "get the file anew"
            )
        return self._file.read(count)


def _refuse_long_words(pickled: IO[bytes], path: Path) -> bool:
    """Go through one pickle to its end; tell whether that came as it should."""
    try:
        for _, argument, _ in pickletools.genops(cast("IO[bytes]", _Bounded(pickled, path))):
            text = argument.decode("latin-1") if isinstance(argument, bytes) else argument
            if isinstance(text, str) and len(text) >= _LONGEST_WORD and _TOO_LONG.search(text):
                raise CheckpointError(
                    f"{path} is refused: it holds a word of more than {_LONGEST_WORD} characters, "
                    "which no weights file has; ask its author for a safetensors file"
                )
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is refused: it asks for code of a name that is no text; "
            "ask its author for a safetensors file"
        ) from error
    except (ValueError, OverflowError):
        return False
    return True
