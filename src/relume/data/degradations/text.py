"""Text on the picture: a caption below, or a watermark all over.

I = J (1 - o m) + ink · o m, with m the anti-aliased letters and o the opacity; on stored values, as
programmes lay text on pictures. No publication: what archives and broadcasters do.

Shapes: C channels, H W.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field, field_validator
from torch import Tensor

from relume.core.errors import ConfigError
from relume.data.degradations.base import (
    SameSizeConfig,
    each_picture,
    picture_generator,
)
from relume.data.degradations.ranges import AnyRange, ShareRange, Strength, uniform, within

_Layout = Literal["caption", "watermark"]
_INKS = ((255, 255, 255), (255, 255, 255), (255, 232, 70))
"""Of captions: mostly white, sometimes the subtitles' yellow."""

_NO_LETTER = "\U0010ffff"
"""What Unicode keeps from ever being a letter, so that every font draws its box for missing ones."""

_LOOKED_AT = 40
"""Size at which letters are told from that box, pixels."""


class TextConfig(SameSizeConfig):
    """Settings of text.

    Attributes:
        strength: multiplies the opacity, which ends at 1.
        layouts: "caption", a line or more below with a dark outline; "watermark", repeated on a slant.
        texts: what is written, in letters that the font has; one is drawn for each picture.
        size: of letters as a share of the picture's shorter side; 0.01 to 1.
        caption_opacity: of captions.
        watermark_opacity: of watermarks.
        slant: of watermarks, degrees, positive when it rises; -90 to 90.
        font: a TrueType or OpenType file; None takes Pillow's own, which has those of English.
    """

    name: Literal["text"] = "text"
    strength: Strength = 1.0
    layouts: tuple[_Layout, ...] = Field(("caption", "watermark"), min_length=1)
    texts: tuple[str, ...] = Field(
        (
            "SAMPLE",
            "PREVIEW COPY",
            "Photo archive 1987",
            "We did not think that anyone would come.",
            "Breaking: the river has risen again overnight",
        ),
        min_length=1,
    )
    size: Annotated[ShareRange, within(0.01, 1)] = (0.04, 0.08)
    caption_opacity: ShareRange = (0.85, 1.0)
    watermark_opacity: ShareRange = (0.2, 0.5)
    slant: Annotated[AnyRange, within(-90, 90)] = (15.0, 40.0)
    font: Path | None = None

    @field_validator("texts")
    @classmethod
    def _say_something(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(text.strip() for text in texts):
            raise ValueError("a text is empty; give it letters, or leave it out")
        return texts

    def damage(self) -> Text:
        """Return the degradation.

        Raises:
            ConfigError: the font cannot be read, or lacks a letter of the texts.
        """
        return Text(self)


class Text:
    """Writes on each picture; `margin` is 0."""

    margin = 0

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        font = _font(config.font, _LOOKED_AT)
        for text in config.texts:
            _refuse_missing(text, font, config.font)

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def masks(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return o m `B 1 H W`, 0..1, of what a call with a generator in this state writes."""
        height, width = high.shape[-2:]
        return torch.stack([self._written(height, width, picture_generator(generator))[1] for _ in high]).to(
            high
        )

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        height, width = picture.shape[-2:]
        ink, opacity = (part.to(picture.device) for part in self._written(height, width, random))
        if picture.shape[0] == 1:
            ink = ink.mean(dim=0, keepdim=True)
        return torch.lerp(picture, ink.expand_as(picture), opacity.expand_as(picture))

    def _written(self, height: int, width: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return ink `3 H W` and its opacity `1 H W`."""
        config = self.config
        layout = config.layouts[int(torch.randint(len(config.layouts), (), generator=random))]
        text = config.texts[int(torch.randint(len(config.texts), (), generator=random))]
        size = max(6, round(min(height, width) * uniform(config.size, random)))
        if layout == "caption":
            opacity = uniform(config.caption_opacity, random)
            ink = _INKS[int(torch.randint(len(_INKS), (), generator=random))]
            layer = _caption(text, size, ink, height, width, config.font)
        else:
            opacity = uniform(config.watermark_opacity, random)
            offset = (uniform((0, 1), random), uniform((0, 1), random))
            slant = uniform(config.slant, random)
            layer = _watermark(text, size, slant, offset, height, width, config.font)
        planes = torch.from_numpy(np.array(layer, dtype=np.float32)).permute(2, 0, 1) / 255
        return planes[:3], planes[3:] * min(1.0, opacity * config.strength)


def _caption(
    text: str, size: int, ink: tuple[int, int, int], height: int, width: int, font_file: Path | None
) -> Image.Image:
    """Return a layer with the text centred at its foot, broken into lines that fit."""
    font = _font(font_file, size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > 0.92 * width:
            lines.append(word)
        else:
            lines[-1] = longer
    layer = Image.new("RGBA", (width, height), (*ink, 0))
    outline = max(1, size // 12)
    ImageDraw.Draw(layer).multiline_text(
        (width / 2, height - size * 0.6), "\n".join(lines), font=font, fill=(*ink, 255), anchor="md",
        align="center", stroke_width=outline, stroke_fill=(16, 16, 16, 255),
    )  # fmt: skip
    return layer


def _watermark(
    text: str, size: int, slant: float, offset: tuple[float, float], height: int, width: int,
    font_file: Path | None,
) -> Image.Image:  # fmt: skip
    """Return a layer with the text in rows, every other one shifted, turned by the slant."""
    font = _font(font_file, size)
    # Large enough to cover the picture at any slant.
    side = 2 * max(height, width)
    gap_x, gap_y = font.getlength(text) + 3 * size, 4 * size
    letters = Image.new("L", (side, side))
    pen = ImageDraw.Draw(letters)
    for row in range(int(side // gap_y) + 2):
        start = (offset[0] + 0.5 * (row % 2) - 1) * gap_x
        for column in range(int(side // gap_x) + 3):
            pen.text((start + column * gap_x, (row + offset[1] - 1) * gap_y), text, font=font, fill=255)
    turned = letters.rotate(slant, resample=Image.Resampling.BICUBIC)
    left, top = (side - width) // 2, (side - height) // 2
    layer = Image.new("RGBA", (width, height), (255, 255, 255, 0))
    layer.putalpha(turned.crop((left, top, left + width, top + height)))
    return layer


def _font(file: Path | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if file is None:
        return ImageFont.load_default(size=size)
    try:
        return ImageFont.truetype(str(file), size=size)
    except OSError as error:
        raise ConfigError(
            f"text.font: {file} cannot be read as a font ({error}); name a .ttf or .otf"
        ) from None


def _refuse_missing(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, file: Path | None) -> None:
    """Refuse letters in whose place a font draws a box.

    Raises:
        ConfigError: naming the first of them.
    """
    if not isinstance(font, ImageFont.FreeTypeFont):
        return  # Pillow's bitmap font, which refuses them itself
    box = font.getmask(_NO_LETTER)
    for letter in text:
        drawn = font.getmask(letter)
        if not letter.isspace() and (drawn.size, bytes(drawn)) == (box.size, bytes(box)):
            whose = "Pillow's own font" if file is None else str(file)
            raise ConfigError(
                f"text.texts: {text!r} holds {letter!r}, which {whose} lacks; name a "
                f"font that has it with text.font, or write without it"
            )


CONFIG = TextConfig
