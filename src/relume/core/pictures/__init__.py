"""Pictures: read and write PNG, JPEG, TIFF, WebP and AVIF with all that they hold; and cubes."""

from relume.core.pictures.canvas import Canvas, canvas_bytes
from relume.core.pictures.formats import CUBES, SUFFIXES, format_of
from relume.core.pictures.listing import pictures_in
from relume.core.pictures.picture import Picture, StoredPicture
from relume.core.pictures.reading import open_stored, read, read_size
from relume.core.pictures.transparency import bleed_canvas, bleed_colour
from relume.core.pictures.writing import check_size, depth_for, memory_to_write, write

__all__ = [
    "CUBES",
    "SUFFIXES",
    "Canvas",
    "Picture",
    "StoredPicture",
    "bleed_canvas",
    "bleed_colour",
    "canvas_bytes",
    "check_size",
    "depth_for",
    "format_of",
    "memory_to_write",
    "open_stored",
    "pictures_in",
    "read",
    "read_size",
    "write",
]
