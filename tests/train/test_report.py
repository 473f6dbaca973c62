"""Reports of trainings: whatever a run folder holds becomes one well-formed page that runs nothing of it."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from torch import nn

from relume.core.checkpoints import Header, write_checkpoint
from relume.core.errors import DataError
from relume.core.sheets import contact_sheet, save_sheet
from relume.train.loop import Loop
from relume.train.objectives.pixel import PixelConfig
from relume.train.observers import JsonLog
from relume.train.reporting.album import shots, spread
from relume.train.reporting.charts import Line, chart, thinned
from relume.train.reporting.markup import element, escaped
from relume.train.reporting.page import page, write_page
from relume.train.reporting.run import read_run
from relume.train.settings import LoopConfig

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>$x^{"


class Batches:
    def batches(self, first, last, **_):
        for step in range(first, last):
            low = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(step))
            yield {"input": low, "target": low * 0.5}


def figures(network, step):
    return {"psnr": 30 + step / 10, "ssim": 0.9, "psnr_bicubic": 28.5, "ssim_bicubic": 0.8}


@pytest.fixture
def run(tmp_path):
    """A run as the loop leaves it, with weights and two pictures at three steps."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    torch.manual_seed(0)
    config = LoopConfig(steps=12, log_every=2, save_every=4, validate_every=4, threads=1)
    recipe = {"variant": "tiny-x2", **config.model_dump(mode="json")}
    network = nn.Conv2d(1, 1, 1)
    Loop(network, PixelConfig().build(), Batches(), config, folder=folder, recipe=recipe,
         validate=figures, observers=[JsonLog(folder)]).run()  # fmt: skip
    (folder / "pictures").mkdir()
    for step in (4, 8, 12):
        for name in ("baby", "bird"):
            sheet(folder / "pictures" / f"{name}-{step:07d}.png", step)
    header = Header(model="tiny", variant="tiny-x2", config={}, trained={"torch": "9.9", "device": "cpu"})
    write_checkpoint(folder / "tiny-x2.safetensors", network.state_dict(), header)
    return folder


def sheet(path, step):
    tiles = [torch.full((3, 64, 80), value) for value in (0.0, step / 20, 1.0)]
    save_sheet(contact_sheet([("a", tiles[0]), ("b", tiles[1]), ("c", tiles[2])]), path)


def parsed(text):
    """The page as XML, after a look that an HTML parser finds the same elements in it."""
    tree = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))

    class Counting(HTMLParser):
        found = 0

        def handle_starttag(self, tag, attrs):
            self.found += 1

    parser = Counting()
    parser.feed(text)
    assert parser.found == sum(1 for _ in tree.iter())
    return tree


def words(tree):
    return " ".join("".join(tree.itertext()).split())


def test_a_run_is_told_whole(run):
    tree = parsed(page([read_run(run)]))
    text = words(tree)
    for expected in (
        "Training of tiny", "finished: all 12 steps, weights written", "31.200 dB after step 12", "+2.700 dB",
        "psnr, dB", "ssim", "learning rate", "gradient", "seconds per step", "waiting for data",
        "tiny-x2.safetensors",
        '"validate_every": 4', "torch9.9", "step 8 (set: 30.80 dB)", "baby", "bird",
    ):  # fmt: skip
        assert expected in text
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}svg")) == 7
    assert len(tree.findall(".//input")) == 2
    assert "problems" not in {part.get("class") for part in tree.iter("div")}


def test_nothing_is_fetched_and_every_name_is_there_once(run):
    text = page([read_run(run)])
    tree = parsed(text)
    for part in tree.iter():
        for name in ("src", "href", "data"):
            assert part.get(name, "#").startswith(("data:image/webp;", "#"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    names = [part.get("id") for part in tree.iter() if part.get("id")]
    assert len(names) == len(set(names))
    for used in re.findall(r'(?:url\(#|href="#)([^)"]+)', text):
        assert used in names


def test_several_runs_share_their_charts(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "log.jsonl").write_text((run / "log.jsonl").read_text().replace("28.5", "27.5"))
    alone, both = page([read_run(run)]), page([read_run(run), read_run(other)])
    assert both.count("<svg") == alone.count("<svg")
    text = words(parsed(both))
    assert "2 trainings compared" in text
    assert "bicubic, tiny bicubic, other" in text


@pytest.mark.parametrize(
    ("logged", "partner", "its_own"),
    [
        ({"real": 0.5, "fake": -0.5, "penalty": 0.1}, "discriminator", ["fake", "penalty"]),
        ({"right": 0.8}, "classifier", ["right"]),
        ({}, "network trained beside", []),
    ],
)
def test_what_a_partner_logs_is_no_part_of_the_loss(tmp_path, logged, partner, its_own):
    figures = {
        "loss": 1.0,
        "l1": 0.5,
        **logged,
        "partner_loss": 1.4,
        "gradient": 2.0,
        "partner_gradient": 3.0,
    }
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text(
            "".join(json.dumps({"step": step, **figures}) + "\n" for step in (2, 4))
        )
    one, two = read_run(tmp_path / "one"), read_run(tmp_path / "two")
    alone = charts(parsed(page([one])))
    assert alone["loss and its parts"] == ["loss", "l1"]
    assert alone[partner] == [*logged, "partner_loss", "partner_gradient"]
    assert [title for title in alone if "partner" in title] == []
    both = charts(parsed(page([one, two])))
    assert {"loss", "l1", *(f"{partner}: {name}" for name in (*its_own, "loss", "gradient"))} <= both.keys()


def test_labels_like_a_partners_are_parts_where_there_is_none(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 2, "loss": 1.0, "real": 0.5}\n')
    assert charts(parsed(page([read_run(tmp_path)])))["loss and its parts"] == ["loss", "real"]


def charts(tree):
    """The legend of each chart, by its title."""
    drawn = [part for part in tree.iter("div") if part.get("class") == "chart"]
    return {
        "".join(part.find("h3").itertext()): [
            "".join(entry.itertext()).strip() for entry in part.iter("span") if entry.get("class") == "entry"
        ]
        for part in drawn
    }


def test_runs_of_one_name_are_told_apart(run, tmp_path):
    twin = tmp_path / "again" / "tiny"
    twin.mkdir(parents=True)
    (twin / "log.jsonl").write_text((run / "log.jsonl").read_text())
    assert "again/tiny" in words(parsed(page([read_run(run), read_run(twin)])))


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ('{"step": 2, "loss": 0.5}\n{"step": 4, "lo', "The last line of the log was cut short."),
        ('{"step": 2, "loss": 0.5}\n{"st\n{"step": 4}\n', "damaged in line 2; the 2 lines from there on"),
        ('{"step": 2, "loss": NaN}\n', "1 logged values are no finite numbers"),
        ('{"step": 2, "loss": 1' + "0" * 400 + "}\n", "1 logged values are no finite numbers"),
        ('[1]\n7\n{"step": true}\n{"step": 3, "loss": 1}\n', "3 lines of the log name no step"),
        ("", "The log holds no figures yet."),
        ("[" * 100_000, "The log is damaged"),
        ('{"step": 2, "loss": 0.5}\n', "No validation is logged"),
        ('{"step": 2, "loss": 0.5}\n', "There are no validation pictures."),
        ('{"step": 2, "loss": 0.5}\n', "No state is saved yet"),
        ('{"step": 2, "loss": 0.5}\n', "There are no weights yet."),
        ('{"step": 2, "notice": "went back"}\n', "step 2: went back"),
        ('{"step": 2, "loss": -1}\n', "loss"),
    ],
)  # fmt: skip
def test_what_is_missing_or_broken_is_said(tmp_path, log, says):
    (tmp_path / "log.jsonl").write_text(log)
    assert says in words(parsed(page([read_run(tmp_path)])))


def test_a_log_that_is_no_text_is_said(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "it is no text" in words(parsed(page([read_run(tmp_path)])))


@pytest.mark.parametrize(
    ("variant", "word"), [("dncnn-25", "input"), ("cfsr-x2", "bicubic"), ("x", "bicubic")]
)
def test_what_outputs_are_compared_with_has_one_name(run, tmp_path, variant, word):
    (run / "state.safetensors").unlink()
    header = Header(model="a", variant=variant, config={}, recipe={"variant": variant})
    write_checkpoint(run / "tiny-x2.safetensors", nn.Conv2d(1, 1, 1).state_dict(), header)
    text = page([read_run(run)])
    said = words(parsed(text))
    assert f"gain on {word}" in said
    assert f"after step 8: {word}, output, original" in text
    assert text.count("bicubic") == (0 if word == "input" else text.count(word))


def test_runs_of_several_kinds_name_each_what_it_is_compared_with(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "log.jsonl").write_text((run / "log.jsonl").read_text())
    header = Header(model="a", variant="dncnn-25", config={}, recipe={"variant": "dncnn-25"})
    write_checkpoint(other / "a.safetensors", nn.Conv2d(1, 1, 1).state_dict(), header)
    said = words(parsed(page([read_run(run), read_run(other)])))
    assert "gain on bicubic or input" in said
    assert "bicubic, tiny" in said
    assert "input, other" in said


def test_a_run_that_was_stopped_says_where(run):
    (run / "tiny-x2.safetensors").unlink()
    assert "the last weights are missing" in read_run(run).ending(0)
    (run / "state.safetensors").unlink()
    record = read_run(run)
    assert "under way" in record.ending(record.touched + 5)
    assert "not finished: step 12" in record.ending(record.touched + 5000)


def test_broken_weights_state_and_pictures_are_said(run):
    (run / "best.safetensors").write_bytes(b"no")
    (run / "state.safetensors").write_bytes(b"no")
    (run / "earlier.safetensors").write_bytes(b"no")
    (run / "pictures" / "baby-0000008.png").write_bytes(b"no")
    broken = (run / "pictures" / "bird-0000008.png").read_bytes()
    (run / "pictures" / "bird-0000008.png").write_bytes(broken[:200])
    text = words(parsed(page([read_run(run)])))
    for expected in ("Weights cannot be read", "The state cannot be read", "baby-0000008.png is no PNG",
                     "bird-0000008.png cannot be read"):  # fmt: skip
        assert expected in text
    assert "earlier.safetensors" not in text  # a state, no weights


def test_a_hostile_run_injects_nothing(tmp_path):
    folder = tmp_path / HOSTILE.replace("/", "_")
    (folder / "pictures").mkdir(parents=True)
    line = {"step": 1, "loss": 1.0, HOSTILE: 2.0, "notice": HOSTILE, "validation": {HOSTILE: 3.0}}
    (folder / "log.jsonl").write_text(json.dumps(line))
    sheet(folder / "pictures" / f"{HOSTILE.replace('/', '_')}-0000001.png", 4)
    facts = {HOSTILE: [HOSTILE]}
    header = Header(model=HOSTILE, variant=HOSTILE, config={}, trained=facts, recipe=facts)
    write_checkpoint(folder / "a.safetensors", {"x": torch.zeros(1)}, header)
    text = page([read_run(folder)])
    tree = parsed(text)
    assert len(list(tree.iter("script"))) == 1
    assert all(not name.lower().startswith("on") for part in tree.iter() for name in part.attrib)
    assert {part.get("src")[:16] for part in tree.iter("img")} == {"data:image/webp;"}
    assert words(tree).count(HOSTILE) >= 5


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        read_run(tmp_path / "none")
    with pytest.raises(DataError, match="no run of relume train"):
        read_run(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "log.jsonl").write_text("")
    with pytest.raises(DataError, match="it holds runs, name them: one"):
        read_run(tmp_path)


def test_the_page_is_written_whole(run, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("older")
    write_page([read_run(run)], path)
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert not list(tmp_path.glob(".relume-*"))


def test_details_are_the_same_place_of_bicubic_output_and_original(tmp_path):
    torch.manual_seed(0)
    picture = torch.rand(3, 120, 150)
    path = tmp_path / "a-0000001.png"
    save_sheet(contact_sheet([("a", picture), ("b", picture), ("c", picture)]), path)
    (shot,) = shots([(1, path)], [])
    assert len(set(shot.details)) == 1


def test_pictures_stay_small_and_few(tmp_path):
    path = tmp_path / "a-0000001.png"
    Image.new("RGB", (4000, 1500)).save(path)
    found = shots([(step, path) for step in range(100)], [])
    assert [found[0].step, found[-1].step] == [0, 99]
    assert len(found) <= 8
    assert found[0].size == (1100, 412)


@given(some.lists(some.integers(), max_size=60), some.integers(2, 12))
def test_spreading_keeps_order_first_and_last(values, most):
    found = spread(list(enumerate(values)), most)
    assert len(found) == min(len(values), most)
    assert found == sorted(found)
    if values:
        assert found[0][0] == 0
        assert found[-1][0] == len(values) - 1


@settings(deadline=None)
@given(some.integers(1, 5000))
def test_thinning_keeps_the_mean_and_the_last_step(count):
    points = [(step, float(step % 7)) for step in range(count)]
    found = thinned(points)
    assert len(found) <= 1000
    assert found[-1][0] == count - 1
    assert min(value for _, value in points) <= min(value for _, value in found)


@given(some.text())
def test_any_text_survives_as_text(text):
    tree = ElementTree.fromstring(element("p", text, title=text))
    plain = "".join(char for char in text if char.isprintable() and not 0x202A <= ord(char) <= 0x2069)
    if plain == text:
        assert (tree.text or "") == text
        assert tree.get("title") == text


def test_text_that_no_file_can_hold_is_escaped():
    assert escaped("a\ud800\x00\u202e") == r"a\ud800\x00\u202e"


def test_steps_are_whole_and_a_narrow_range_has_labels_too():
    points = [(step, 0.06 + 0.003 * step) for step in range(1, 10)]
    drawn = str(chart([Line(points=points, colour="#000000")], number=1, logarithmic=True))
    labels = re.findall(r">([^<>]+)</text>", drawn)
    assert labels == [*map(str, range(1, 10)), "step", "0.07", "0.08"]


def test_values_at_or_below_nothing_are_no_error_on_a_logarithmic_chart():
    drawn = chart([Line([(1, 0.0), (2, -1.0)], "#000000")], number=1, logarithmic=True)
    assert drawn.startswith("<svg")
    assert drawn.endswith("</svg>")
