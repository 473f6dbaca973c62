"""What one picture file held: as floats in memory, or as levels in memory or on disk.

Shapes: C channels (1 gray, 3 RGB; the bands of a cube), H height, W width, h rows in hand.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from relume.core.cubes import CubeForm
from relume.core.pictures.canvas import Canvas


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """Pixels and everything else that came with them.

    Two pictures are equal only when they are the same object: comparing pixels is
    the caller's business.

    Attributes:
        pixels: Float32, C×H×W with C = 1 (gray) or 3 (RGB), 0..1: the stored values
            divided by the largest level, with no change of gamma. Of a cube any C, and
            divided by the largest value that it holds.
        alpha: Float32, 1×H×W, 0..1, straight (colour is not multiplied by it).
        bits: 8 or 16, what the file stored. Depths below 8 count as 8, the 10 and 12
            bits of AVIF count as 16. 32 for a cube, whose samples are floats.
        icc: Colour profile.
        exif: EXIF as a bare TIFF structure (no "Exif" prefix). As read, the orientation
            has been applied to the pixels and set to 1.
        xmp: XMP packet.
        dpi: Horizontal and vertical resolution, in pixels per inch.
        format: "png", "jpeg", "tiff", "webp", "avif", "mat" or "npy": what it was read from.
        notes: What was changed on reading and a user should know, one sentence each.
        cube: Of a cube, its units and how its file keeps it.

    Raises:
        ValueError: When shapes, types or bits do not fit together.
    """

    pixels: torch.Tensor
    alpha: torch.Tensor | None = None
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str | None = None
    notes: tuple[str, ...] = ()
    cube: CubeForm | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or (shape[0] not in (1, 3) and not self.cube) or 0 in shape:
            raise ValueError(f"pixels must be 1×H×W or 3×H×W and not empty, not {shape}")
        if self.pixels.dtype != torch.float32:
            raise ValueError(f"pixels must be float32, not {self.pixels.dtype}")
        if self.alpha is not None:
            expected = (1, *shape[1:])
            if tuple(self.alpha.shape) != expected or self.alpha.dtype != torch.float32:
                raise ValueError(
                    f"alpha must be float32 of shape {expected}, "
                    f"not {self.alpha.dtype} of shape {tuple(self.alpha.shape)}"
                )
        _check_bits(self.bits, self.cube)

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB, the bands of a cube; alpha does not count."""
        return int(self.pixels.shape[0])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[2])

    @property
    def size(self) -> str:
        """Width and height as people write them: "640x480"."""
        return f"{self.width}x{self.height}"

    @property
    def transparent(self) -> bool:
        """Whether it has an alpha."""
        return self.alpha is not None

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        """Return rows as C×h×W, or (C + 1)×h×W with the alpha last."""
        colour = self.pixels[:, top:bottom]
        return colour if self.alpha is None else torch.cat([colour, self.alpha[:, top:bottom]])

    def replace(self, **changes: Any) -> Picture:
        """Return a copy with some fields changed.

        Raises:
            TypeError: When a field does not exist.
            ValueError: When the result does not fit together.
        """
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredPicture:
    """A picture as levels that may lie on disk, and everything else that came with them.

    A context manager, which closes its canvas.

    Attributes:
        canvas: The levels; the alpha, if any, is the last band. Of 10 or 12 bits where the file had them.
        bits: As of `Picture`, and so are all that follow.
        icc: Colour profile.
        exif: EXIF.
        xmp: XMP packet.
        dpi: Resolution.
        format: What it was read from.
        notes: What was changed on reading.
        cube: Of a cube, its units and how its file keeps it.

    Raises:
        ValueError: When `bits` is not 8 or 16, or 32 of a cube.
    """

    canvas: Canvas
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str | None = None
    notes: tuple[str, ...] = ()
    cube: CubeForm | None = None

    def __post_init__(self) -> None:
        _check_bits(self.bits, self.cube)

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB, the bands of a cube; alpha does not count."""
        if self.cube:
            return self.canvas.bands
        return 1 if self.canvas.bands < 3 else 3

    @property
    def height(self) -> int:
        """Rows."""
        return self.canvas.height

    @property
    def width(self) -> int:
        """Columns."""
        return self.canvas.width

    @property
    def size(self) -> str:
        """Width and height as people write them: "640x480"."""
        return self.canvas.size

    @property
    def transparent(self) -> bool:
        """Whether it has an alpha."""
        return not self.cube and self.canvas.bands in (2, 4)

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        """Return rows as float32 C×h×W, or (C + 1)×h×W with the alpha last."""
        return self.canvas.rows(top, bottom)

    def picture(self) -> Picture:
        """Return it as floats in memory."""
        planes = self.canvas.rows(0, self.height)
        return Picture(
            pixels=planes[: self.channels],
            alpha=planes[self.channels :] if self.transparent else None,
            **{name: getattr(self, name) for name in _BESIDE},
        )

    def replace(self, **changes: Any) -> StoredPicture:
        """Return a copy with some fields changed; the canvas is shared unless replaced.

        Raises:
            TypeError: When a field does not exist.
            ValueError: When the result does not fit together.
        """
        return dataclasses.replace(self, **changes)

    def close(self) -> None:
        """Give the memory or disk space of its levels back."""
        self.canvas.close()

    def __enter__(self) -> StoredPicture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_bits(bits: int, cube: CubeForm | None) -> None:
    if bits not in ((32,) if cube else (8, 16)):
        raise ValueError(f"bits must be 8 or 16, or 32 of a cube, not {bits}")


_BESIDE = tuple(field.name for field in dataclasses.fields(StoredPicture) if field.name != "canvas")
