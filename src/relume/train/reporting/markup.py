"""HTML of which every text is escaped by construction, and that is well-formed XML too."""

from __future__ import annotations

import html
import unicodedata

_VOID = {"meta", "img", "input", "br"}


class Markup(str):
    """Text that is HTML already; anything else is escaped on its way into an element."""

    __slots__ = ()


def element(tag: str, /, *children: str | Markup, **attributes: str | int | None) -> Markup:
    """Return an element; `class_` stands for class, `data_step` for data-step; None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}/>")
    inside = "".join(child if isinstance(child, Markup) else escaped(child) for child in children)
    return Markup(f"<{tag}{written}>{inside}</{tag}>")


def joined(parts: list[Markup]) -> Markup:
    """Return elements one after the other."""
    return Markup("\n".join(parts))


def escaped(text: str) -> Markup:
    """Return text for an element or attribute; what is no character, or turns text round, shows as escape."""
    shown = "".join(char if _is_plain(char) else ascii(char)[1:-1] for char in text)
    return Markup(html.escape(shown, quote=True))


def _is_plain(char: str) -> bool:
    if char in "\n\t":
        return True
    code = ord(char)
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return not turns and code & 0xFFFE != 0xFFFE and unicodedata.category(char) not in ("Cc", "Cs", "Cn")
