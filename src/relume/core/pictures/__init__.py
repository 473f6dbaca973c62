"""Pictures: read and write PNG, JPEG, TIFF, WebP and AVIF with all that they hold."""

from relume.core.pictures.formats import SUFFIXES, format_of
from relume.core.pictures.listing import pictures_in
from relume.core.pictures.picture import Picture
from relume.core.pictures.reading import read, read_size
from relume.core.pictures.transparency import bleed_colour
from relume.core.pictures.writing import write

__all__ = ["SUFFIXES", "Picture", "bleed_colour", "format_of", "pictures_in", "read", "read_size", "write"]
