"""The training loop: schedule, optimiser, running mean, logs, and what it refuses."""

import json
import shutil
import time

import pytest
import torch
from torch import nn

from relume.core.pictures import Picture, write
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.pairs import PairLoader
from relume.data.patches import PatchesConfig, PhotoList
from relume.train.ema import WeightAverage
from relume.train.loop import Loop, RunStoppedError
from relume.train.objectives.pixel import PixelConfig
from relume.train.observers import Curve, JsonLog, read_log, tensorboard_log
from relume.train.settings import LoopConfig, OptimiserConfig, ScheduleConfig
from relume.train.state import FILE, numbered, numbered_paths
from relume.train.stepping import learning_rate
from relume.train.validation import ValidationConfig


class Shrinking:
    """Batches that a 1×1 convolution can learn exactly; each depends on its step alone."""

    def batches(self, first, last, *, rank, world, device):
        for step in range(first, last):
            low = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(step))
            yield {"input": low, "target": low * 0.5}


def loop(folder, *, source=None, steps=40, log_every=10, observers=None, **settings):
    torch.manual_seed(0)
    config = LoopConfig(steps=steps, log_every=log_every, save_every=10, validate_every=20, **settings)
    return Loop(
        nn.Conv2d(1, 1, 1), PixelConfig().build(), source or Shrinking(), config,
        folder=folder, recipe=config.model_dump(mode="json"), observers=observers or [JsonLog(folder)],
    )  # fmt: skip


def stop_after_step(run, last):
    """Have the user ask while step `last` is under way."""
    batches = run.source.batches

    def asking(first, *arguments, **named):
        for step, batch in enumerate(batches(first, *arguments, **named), start=first + 1):
            if step == last:
                run.ask_to_stop()
            yield batch

    run.source.batches = asking


def test_learning_rate_warms_up_and_falls_to_its_floor():
    optimiser, schedule = OptimiserConfig(learning_rate=1.0), ScheduleConfig(warmup=10, floor=0.1)
    rates = [learning_rate(step, 110, optimiser, schedule) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates == rates[:10] + sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_warm_up_longer_than_the_run_is_cut():
    assert learning_rate(4, 5, OptimiserConfig(learning_rate=1.0), ScheduleConfig(warmup=100)) == 1.0


def test_the_rate_is_halved_where_it_is_said():
    schedule = ScheduleConfig(warmup=2, halvings=(0.5, 0.8, 0.9))
    rates = [learning_rate(step, 20, OptimiserConfig(learning_rate=4.0), schedule) for step in range(20)]
    assert rates == [2.0] + [4.0] * 9 + [2.0] * 6 + [1.0] * 2 + [0.5] * 2


def test_learns(tmp_path):
    losses = []
    run = loop(tmp_path, steps=200, optimiser=OptimiserConfig(learning_rate=0.05))
    run.run()
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_named_optimiser_is_used(tmp_path, name):
    run = loop(tmp_path, optimiser=OptimiserConfig(name=name))
    optimiser = run.stepper.holdings.optimisers["network"]
    assert type(optimiser) is {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]


def test_gradients_are_clipped(tmp_path):
    run = loop(tmp_path, steps=1, clip=1e-3, optimiser=OptimiserConfig(weight_decay=0.0))
    run.run()
    norm = torch.stack([value.grad.norm() for value in run.network.parameters()]).norm()
    assert norm <= 1.01e-3


def test_running_mean_follows_its_formula():
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, 0.9)
    expected = module.weight.item()
    for step in range(1, 30):
        with torch.no_grad():
            module.weight.fill_(step)
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.mean["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_no_running_mean_gives_the_last_weights(tmp_path):
    run = loop(tmp_path, ema=0)
    averaged = run.run()
    assert all(torch.equal(averaged[name], value) for name, value in run.network.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_stopping_and_going_on_ends_with_the_same_weights(tmp_path, precision):
    (tmp_path / "alone").mkdir()
    (tmp_path / "stopped").mkdir()
    alone = loop(tmp_path / "alone", precision=precision).run()
    for stop_after in (7, 23):
        run = loop(tmp_path / "stopped", precision=precision)
        stop_after_step(run, stop_after)
        with pytest.raises(RunStoppedError, match=f"after step {stop_after} of 40"):
            run.run()
    again = loop(tmp_path / "stopped", precision=precision).run()
    assert all(torch.equal(alone[name], again[name]) for name in alone)


def test_layers_that_draw_random_numbers_go_on_as_if_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    write(Picture(pixels=torch.rand(3, 40, 40)), tmp_path / "photos" / "a.png")
    patches = PatchesConfig(folders=(tmp_path / "photos",), patch=6, batch=2)
    finals = []
    for stops in ((), (7, 13)):
        folder = tmp_path / f"stopped {len(stops)} times"
        folder.mkdir()
        for stop_after in (*stops, None):
            torch.manual_seed(0)
            source = PairLoader(
                PhotoList.find(patches.folders),
                patches,
                BicubicConfig().build(1),
                scale=1,
                channels=3,
                seed=1,
            )
            network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5), nn.Conv2d(8, 3, 1))
            config = LoopConfig(steps=20, log_every=10, save_every=10)
            run = Loop(network, PixelConfig().build(), source, config, folder=folder, recipe={})
            if stop_after is None:
                finals.append(run.run())
                continue
            stop_after_step(run, stop_after)
            with pytest.raises(RunStoppedError):
                run.run()
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_validation_is_in_full_precision_whatever_the_training(tmp_path):
    run = loop(tmp_path, steps=20, precision="bf16")
    low = torch.rand(1, 1, 4, 4)
    seen = []

    def validate(network, step):
        plain = nn.functional.conv2d(low, network.weight, network.bias)
        seen.append(torch.equal(network(low), plain))
        return {}

    run.validate = validate
    run.run()
    assert seen == [True]


def test_log_reads_as_one_run_after_a_crash(tmp_path):
    loop(tmp_path).run()
    path = tmp_path / "log.jsonl"
    whole = [line["step"] for line in read_log(path)]
    # As a kill leaves it: lines past the checkpoint, the last cut short.
    path.write_text(path.read_text() + json.dumps({"step": 50, "loss": 1.0}) + '\n{"step": 60, "lo')
    log = JsonLog(tmp_path)
    log.started(40, 60)
    log.logged(50, {"loss": 0.5})
    assert [line["step"] for line in read_log(path)] == [*whole, 50]
    assert read_log(path)[-1]["loss"] == 0.5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (b"[]\n", "1 lines of the log name no step"),
        (b'{"st\n{"step": 30, "loss": 1.0}\n', "damaged in line 2; the 2 lines"),
        (b"\xff\n", "it is no text"),
    ],
)
def test_a_damaged_log_does_not_stop_a_resumed_run(tmp_path, damage, says):
    path = tmp_path / "log.jsonl"
    damaged = b'{"step": 10, "loss": 1.0}\n' + damage
    path.write_bytes(damaged)
    JsonLog(tmp_path).started(40, 60)
    notice = read_log(path)[-1]
    assert notice["step"] == 40
    assert says in notice["notice"]
    assert notice["notice"].endswith("It was kept as damaged-log.jsonl.")
    assert (tmp_path / "damaged-log.jsonl").read_bytes() == damaged


def test_a_curve_leaves_out_what_is_no_number(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [
        {"step": 1, "loss": "low"}, {"step": 2, "validation": 7}, {"step": 3, "validation": {"psnr": None}},
        {"step": 4, "validation": {"psnr": 30, "psnr_bicubic": []}}, {"step": 5, "loss": 0.5},
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Curve(tmp_path, title="tiny").finished(5)
    assert (tmp_path / "curve.png").stat().st_size


def test_a_curve_names_what_it_is_compared_with(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, partial, **_: (drawn.append(self), partial.touch())
    )
    (tmp_path / "log.jsonl").write_text('{"step": 4, "validation": {"psnr": 30, "psnr_bicubic": 28}}\n')
    Curve(tmp_path, title="tiny", plain="input").finished(4)
    assert [text.get_text() for text in drawn[0].axes[1].get_legend().get_texts()] == ["network", "input"]


def test_validation_measures_the_running_mean_and_keeps_the_best(tmp_path):
    seen, kept = [], []
    run = loop(tmp_path)
    run.validate = lambda network, step: seen.append(network.weight.item()) or {"psnr": -float(step)}
    run.on_best = lambda state, step: kept.append((step, state["weight"].item()))
    final = run.run()
    assert len(seen) == 2
    assert seen[-1] == final["weight"].item() != run.network.weight.item()
    assert kept == [(20, seen[0])]


def test_another_figure_can_decide_and_its_lowest_can_be_best(tmp_path):
    kept = []
    run = loop(tmp_path)
    run.decides, run.lowest = "lpips", True
    run.validate = lambda network, step: {"psnr": -float(step), "lpips": -float(step)}
    run.on_best = lambda state, step: kept.append(step)
    run.run()
    assert kept == [20, 40]
    assert run.progress.best == -40


def test_the_lowest_angle_is_best_and_the_highest_of_all_else():
    best = [ValidationConfig(protocol="cube", best=name).lowest for name in ("sam", "psnr", "ssim")]
    assert best == [True, False, False]


def test_log_tells_the_share_of_waiting_for_data(tmp_path):
    class Slow(Shrinking):
        def batches(self, *arguments, **named):
            for batch in super().batches(*arguments, **named):
                time.sleep(0.02)
                yield batch

    loop(tmp_path, source=Slow(), steps=20).run()
    lines = read_log(tmp_path / "log.jsonl")
    assert all(0.5 < line["data_share"] < 1 for line in lines)
    assert all(line["seconds_per_step"] > 0.02 for line in lines)


def test_states_are_kept_by_number_with_their_weights(tmp_path):
    kept = {}
    run = loop(tmp_path, steps=60, keep=2, keep_every=30)
    run.on_numbered = lambda state, step: kept.update({step: state["weight"].item()})
    final = run.run()
    assert numbered(tmp_path) == [30, 50, 60]
    assert sorted(kept) == [10, 20, 30, 40, 50, 60]
    assert kept[60] == final["weight"].item()
    # A numbered state is a state: from its place, the run goes on and comes to the same end.
    (tmp_path / "again").mkdir()
    shutil.copy(numbered_paths(tmp_path, 30)[0], tmp_path / "again" / FILE)
    again = loop(tmp_path / "again", steps=60, keep=2, keep_every=30).run()
    assert all(torch.equal(final[name], again[name]) for name in final)


def test_without_keeping_there_is_one_state(tmp_path):
    loop(tmp_path, steps=20).run()
    assert numbered(tmp_path) == []
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [FILE]


def test_curve_is_drawn(tmp_path):
    log, curve = JsonLog(tmp_path), Curve(tmp_path, title="a run")
    log.started(0, 20)
    log.logged(10, {"loss": 0.5})
    log.validated(10, {"psnr": 30.0, "psnr_bicubic": 28.0})
    curve.validated(10, {})
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_gets_the_same_figures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = tensorboard_log(tmp_path)
    loop(tmp_path, observers=[JsonLog(tmp_path), board]).run()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = {line["step"]: line["loss"] for line in read_log(tmp_path / "log.jsonl")}
    assert {event.step: event.value for event in events.Scalars("train/loss")} == pytest.approx(logged)
