"""Pictures are found in a steady order, whatever names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relume.infer.batch.inputs import Finder

TREE = (
    "b.png", "a.PNG", "text.txt", ".hidden.png", "[x].png", "sub/c.png", "sub/deeper/d.png",
    "sub/deeper/e.jpg", ".secret/f.png", "other/c.png", "other/odd.png/g.png",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "hollow").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(*given: str, deep: bool = False) -> tuple[list[tuple[str, str]], list[str]]:
    lines: list[str] = []
    found = Finder((".png", ".jpg"), deep=deep, manifest=None, tell=lines.append).find(given)
    return [(Path(each.path).as_posix(), Path(each.folder).as_posix()) for each in found], lines


@pytest.mark.parametrize(
    ("given", "deep", "found"),
    [
        (["."], False, ["[x].png", "a.PNG", "b.png"]),
        (["sub", "b.png"], False, ["sub/c.png", "b.png"]),
        (["sub"], True, ["sub/c.png", "sub/deeper/d.png", "sub/deeper/e.jpg"]),
        (["*.png"], False, ["[x].png", "b.png"]),
        (["[x].png"], False, ["[x].png"]),  # the name itself, although it is a pattern too
        (["[ab].*"], False, ["a.PNG", "b.png"]),
        (["**/*.png"], False, ["[x].png", "b.png", "other/c.png", "other/odd.png/g.png", "sub/c.png",
                               "sub/deeper/d.png"]),
        (["**/**/e.*"], False, ["sub/deeper/e.jpg"]),
        (["*/c.png"], False, ["other/c.png", "sub/c.png"]),
        (["sub/**"], False, ["sub/c.png", "sub/deeper/d.png", "sub/deeper/e.jpg"]),
        (["o*/**/g.png"], False, ["other/odd.png/g.png"]),
    ],
)  # fmt: skip
def test_files_folders_and_patterns(tree, given, deep, found):
    assert [path for path, _ in find(*given, deep=deep)[0]] == found


def test_where_in_the_tree_each_lies_is_told(tree):
    assert find(".", deep=True)[0] == [
        ("[x].png", "."), ("a.PNG", "."), ("b.png", "."), ("other/c.png", "other"),
        ("other/odd.png/g.png", "other/odd.png"), ("sub/c.png", "sub"), ("sub/deeper/d.png", "sub/deeper"),
        ("sub/deeper/e.jpg", "sub/deeper"),
    ]  # fmt: skip
    assert find("sub/d*/*.png")[0] == [("sub/deeper/d.png", "deeper")]
    assert find("sub/c.png")[0] == [("sub/c.png", ".")]


def test_what_holds_nothing_is_told_in_a_line(tree):
    found, lines = find("hollow", "*.tif", "missing.png", "hollow/**/x.png")
    assert found == [("missing.png", ".")]
    assert lines == [
        "hollow: holds no picture (.jpg, .png)",
        "*.tif: matches no picture (.jpg, .png)",
        "hollow/**/x.png: matches no picture (.jpg, .png)",
    ]


def test_links_in_circles_are_not_followed(tree):
    try:
        (tree / "sub" / "round").symlink_to(tree, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert len(find(".", deep=True)[0]) == 8
    assert len(find("**/*.png")[0]) == 6


def test_a_folder_that_may_not_be_listed_is_told(tree):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("everything may be listed by this user")
    (tree / "sub").chmod(0)
    assert find("sub") == ([], ["sub: cannot be listed: permission is missing; choose another folder or "
                                "change its permissions"])  # fmt: skip
