"""Three photos, one of them deep in a folder."""

import pytest
from preparing import save, scene


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for index, name in enumerate(("a.png", "b.png", "deep/er/c.png")):
        save(folder / name, scene(index))
    return folder
