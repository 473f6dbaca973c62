"""Relume brings small and damaged pictures back to light.

    import relume

    photo = relume.read("old.jpg")
    model = relume.load("cfsr-x4")
    relume.write(model(photo), "new.png")

Importing it is quick: nothing heavy is imported before the first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relume.apps.face import load as load
    from relume.apps.face import upscale as upscale
    from relume.core.pictures import Picture as Picture
    from relume.core.pictures import read as read
    from relume.core.pictures import write as write
    from relume.infer.restorer import Restorer as Restorer

__version__ = "0.1.0"

_HOMES = {
    "Picture": "relume.core.pictures",
    "Restorer": "relume.infer.restorer",
    "load": "relume.apps.face",
    "read": "relume.core.pictures",
    "upscale": "relume.apps.face",
    "write": "relume.core.pictures",
}
__all__ = ["Picture", "Restorer", "__version__", "load", "read", "upscale", "write"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'relume' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
