"""Losses and gradients that are no numbers: skipped, gone back from, given up; never in the weights."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch
from torch import nn

from relume.core.errors import RelumeError
from relume.core.pictures import Picture, write
from relume.data.degradations.noise import NoiseConfig
from relume.data.pairs import PairLoader
from relume.data.patches import PatchesConfig, PhotoList
from relume.train.loop import Loop, RunStoppedError
from relume.train.observers import JsonLog, read_log
from relume.train.settings import LoopConfig, RecoveryConfig
from relume.train.state import EARLIER, load_state, read_progress
from relume.train.stepping import learning_rate


class Poisoned:
    """Batches that a small network can learn; those of some steps hold NaN or infinity."""

    def __init__(self, *poison, value=float("nan")):
        self.poison = poison
        self.value = value

    def batches(self, first, last, *, rank, world, device):
        for step in range(first, last):
            low = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(step))
            yield {"input": low + (self.value if step in self.poison else 0), "target": low * 0.5}


class Exploding:
    """A loss that is no number as long as the rate is above a limit, at one place of the run."""

    def __init__(self, *, limit, at):
        self.limit, self.at, self.loop = limit, at, None

    def __call__(self, network, batch):
        loss = (network(batch["input"]) - batch["target"]).abs().mean()
        if self.loop.step >= self.at and self.loop.progress.slowed > self.limit:
            loss = loss * float("inf")
        return {"loss": loss}


class Distance:
    def __call__(self, network, batch):
        return {"loss": (network(batch["input"]) - batch["target"]).abs().mean()}


def loop(folder, source, objective=None, *, network=None, **settings):
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    config = LoopConfig(**{"steps": 40, "log_every": 10, "save_every": 10, **settings})
    network = network or nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    run = Loop(network, objective or Distance(), source, config, folder=folder, recipe={},
               observers=[JsonLog(folder)])  # fmt: skip
    if isinstance(objective, Exploding):
        objective.loop = run
    return run


def notices(folder):
    return [(line["step"], line["notice"]) for line in read_log(folder / "log.jsonl") if "notice" in line]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_broken_batch_is_skipped_and_said_in_one_line(tmp_path, value, precision):
    # Without batch norm in front, which would make numbers of what is merely huge.
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    run = loop(tmp_path, Poisoned(15, value=value), network=network, precision=precision)
    run.stepper.objective = lambda network, batch: {"loss": (network(batch["input"]).square()).mean()}
    final = run.run()
    assert notices(tmp_path) == [(16, "the loss or its gradient is no number; this batch is skipped")]
    assert all(tensor.isfinite().all() for tensor in final.values())
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl") if "loss" in line]
    assert len(losses) == 4
    assert all(loss == loss for loss in losses)


def test_a_skipped_batch_leaves_all_as_if_it_had_not_been(tmp_path):
    class Without(Poisoned):
        def batches(self, first, last, **named):
            clean = Poisoned().batches(first, last, **named)
            return (batch for step, batch in enumerate(clean, first) if step != 15)

    run = loop(tmp_path / "poisoned", Poisoned(15), steps=40, ema=0, log_every=1, save_every=100)
    # The same steps with the same rates, by hand.
    other = loop(tmp_path / "without", Without(), steps=40, ema=0)
    poisoned = run.run()
    other.stepper.train()
    for step, batch in zip((step for step in range(40) if step != 15),
                           Without().batches(0, 40, rank=0, world=1, device=None), strict=True):  # fmt: skip
        assert not other.stepper.step(batch, step).broken
    ours = other.network.state_dict()
    assert all(torch.equal(poisoned[name], ours[name]) for name in ours)
    assert ours["1.running_mean"].isfinite().all()


def test_too_many_in_a_row_go_back_to_the_last_state_with_a_lower_rate(tmp_path):
    objective = Exploding(limit=0.3, at=25)
    run = loop(tmp_path, Poisoned(), objective, recovery=RecoveryConfig(skips=2))
    final = run.run()
    said = notices(tmp_path)
    assert [text for _, text in said if "back" in text] == [
        f"the loss was no number near step 28: back to the state of step 20, with {rate} of the scheduled "
        "learning rate" for rate in ("0.5", "0.25")
    ]  # fmt: skip
    assert read_progress(tmp_path).slowed == 0.25
    # Steps 10 and 20 were logged at the full rate; 30 and 40 are behind the place, where it is lowered.
    config = run.config
    lines = [line for line in read_log(tmp_path / "log.jsonl") if "loss" in line]
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert rates == {
        step: (0.25 if step > 25 else 1) * learning_rate(step - 1, 40, config.optimiser, config.schedule)
        for step in (10, 20, 30, 40)
    }
    (group,) = run.stepper.holdings.optimisers["network"].param_groups
    assert group["lr"] == rates[40]
    assert read_progress(tmp_path).returns == 0
    assert all(tensor.isfinite().all() for tensor in final.values())
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_before_the_first_state_it_goes_back_to_the_beginning(tmp_path):
    run = loop(tmp_path, Poisoned(), Exploding(limit=0.7, at=3), recovery=RecoveryConfig(skips=0))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    seen = []
    run.source.batches, batches = (
        lambda first, *rest, **named: seen.append(
            (first, all(torch.equal(before[name], value) for name, value in run.network.state_dict().items()))
        ) or batches(first, *rest, **named),
        run.source.batches,
    )  # fmt: skip
    run.run()
    assert seen == [(0, True), (0, True)]
    assert run.progress.slowed == 0.5


def test_gives_up_in_one_line_and_leaves_the_last_good_state(tmp_path):
    run = loop(tmp_path, Poisoned(*range(23, 40)), recovery=RecoveryConfig(skips=1, returns=2))
    with pytest.raises(
        RelumeError, match=r"no longer a number near step 25.*going back 2 times.*learning_rate"
    ) as error:
        run.run()
    assert str(error.value).endswith(f"; the last good state is in {tmp_path}")
    assert len([text for _, text in notices(tmp_path) if "back to" in text]) == 2
    again = loop(tmp_path, Poisoned())
    load_state(tmp_path, again.stepper.holdings)
    assert read_progress(tmp_path).step == 20
    assert all(value.isfinite().all() for value in again.network.state_dict().values())


@pytest.mark.parametrize(("precision", "advice"), [("fp32", ""), ("bf16", " or use precision=fp32")])
def test_gives_up_before_the_first_state_and_speaks_of_none(tmp_path, precision, advice):
    run = loop(
        tmp_path, Poisoned(*range(40)), precision=precision, recovery=RecoveryConfig(skips=1, returns=1)
    )
    with pytest.raises(RelumeError, match=rf"near step 2.*; lower optimiser\.learning_rate{advice}$"):
        run.run()
    assert read_progress(tmp_path) is None


def test_killed_while_it_goes_back_it_ends_as_if_left_alone(tmp_path):
    settings = {"recovery": RecoveryConfig(skips=1), "save_every": 5}
    alone = loop(tmp_path / "alone", Poisoned(), Exploding(limit=0.3, at=23), **settings).run()

    class KilledError(Exception):
        pass

    class Killing(Poisoned):
        """Ends after so many batches, as a kill does: nothing is saved."""

        def batches(self, *arguments, **named):
            for batch in super().batches(*arguments, **named):
                self.left -= 1
                if self.left < 0:
                    raise KilledError
                yield batch

    for left in (23, 6, 3, 5, 9, 2):
        source = Killing()
        source.left = left
        with pytest.raises(KilledError):
            loop(tmp_path / "killed", source, Exploding(limit=0.3, at=23), **settings).run()
    killed = loop(tmp_path / "killed", Poisoned(), Exploding(limit=0.3, at=23), **settings).run()
    assert all(torch.equal(alone[name], killed[name]) for name in alone)


class Stopping(Poisoned):
    """Asks the run to stop in the middle of the step after so many batches, as Ctrl-C does."""

    def __init__(self, *poison):
        super().__init__(*poison)
        self.loop, self.left = None, None

    def batches(self, *arguments, **named):
        for batch in super().batches(*arguments, **named):
            self.left -= 1
            if self.left == 0:
                self.loop.ask_to_stop()
            yield batch


@pytest.mark.parametrize(
    ("poison", "skips", "stops"),
    [
        ((23, 24), 1, (22, 5, 3)),  # before it, and after it went back
        ((23, 24), 1, (24, 1)),  # between the two broken steps
        ((3, 4), 1, (2, 1, 4)),  # before the first state that is due
        ((14, 23, 24, 25, 26), 3, (15, 4, 6, 1, 9)),
        ((9, 10, 11), 2, (11, 3)),  # the state of step 10 is not due, as its step was broken
    ],
)
def test_stopped_before_and_after_it_goes_back_it_ends_as_if_left_alone(tmp_path, poison, skips, stops):
    settings = {"recovery": RecoveryConfig(skips=skips, lower=0.5), "save_every": 5, "steps": 30}

    class Once(Distance):
        """The loss of what was poisoned is a number again once the rate is lower."""

        def __init__(self):
            self.loop = None

        def __call__(self, network, batch):
            if self.loop.progress.slowed < 1:
                batch = {name: value.nan_to_num(0.5) for name, value in batch.items()}
            return super().__call__(network, batch)

    def made(folder, source):
        objective = Once()
        run = objective.loop = loop(folder, source, objective, **settings)
        return run

    alone = made(tmp_path / "alone", Poisoned(*poison)).run()
    back = [text for _, text in notices(tmp_path / "alone") if "back to the state" in text]
    assert len(back) == 1
    for left in stops:
        source = Stopping(*poison)
        run = source.loop = made(tmp_path / "stopped", source)
        source.left = left
        with pytest.raises(RunStoppedError):
            run.run()
    stopped = made(tmp_path / "stopped", Poisoned(*poison)).run()
    assert all(torch.equal(alone[name], stopped[name]) for name in alone)
    assert [text for _, text in notices(tmp_path / "stopped") if "back to the state" in text] == back
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {"log.jsonl", "state.safetensors"}


def test_a_stop_past_the_trouble_does_not_count_as_having_got_past_it(tmp_path):
    class Twice(Distance):
        def __call__(self, network, batch):
            values = super().__call__(network, batch)
            step, slowed = self.loop.step, self.loop.progress.slowed
            broken = step >= 14 or (step >= 12 and slowed == 1)
            return {"loss": values["loss"] * (float("inf") if broken else 1)}

    def made(source):
        objective = Twice()
        run = objective.loop = loop(tmp_path, source, objective, save_every=10, recovery=recovery)
        return run

    recovery = RecoveryConfig(skips=0, returns=1)
    source = Stopping()
    source.left = 17  # twelve steps, the broken one, and from step 10 on four more
    source.loop = made(source)
    with pytest.raises(RunStoppedError, match="after step 14"):
        source.loop.run()
    with pytest.raises(RelumeError, match="also after going back 1 times"):
        made(Poisoned()).run()
    assert sum("back to the state" in text for _, text in notices(tmp_path)) == 1


def test_a_state_put_in_place_of_a_later_one_is_not_gone_back_past(tmp_path):
    settings = {"recovery": RecoveryConfig(skips=0, returns=1), "save_every": 10, "keep": 9, "steps": 30}
    source = Stopping()
    source.left = 5
    run = source.loop = loop(tmp_path, source, **settings)
    with pytest.raises(RunStoppedError):
        run.run()
    source = Stopping()
    source.left = 9
    run = source.loop = loop(tmp_path, source, **settings)
    with pytest.raises(RunStoppedError):  # at 14, with the state of 10 kept aside
        run.run()
    assert read_progress(tmp_path, EARLIER).step == 10
    shutil.copy(tmp_path / "numbered/0000005.state.safetensors", tmp_path / "state.safetensors")
    run = loop(tmp_path, Poisoned(6), **settings)
    with pytest.raises(RelumeError, match="also after going back 1 times"):
        run.run()
    assert any("back to the state of step 0," in text for _, text in notices(tmp_path))


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    class Breaks(Distance):
        """What an optimiser does with a far too large rate: a good step leaves broken weights."""

        def __call__(self, network, batch):
            if run.step == 19 and run.progress.slowed == 1:
                with torch.no_grad():
                    network[2].bias.fill_(float("inf"))
                return {
                    "loss": network[0].weight.square().sum()
                    + 0 * network(batch["input"]).nan_to_num(0, 0, 0).sum()
                }
            return super().__call__(network, batch)

    run = loop(tmp_path, Poisoned(), Breaks())
    final = run.run()
    assert all(value.isfinite().all() for value in final.values())
    assert run.progress.slowed == 0.5


class Deadly:
    """Real batches from a worker, which is killed after some steps."""

    def __init__(self, folder, *, after):
        config = PatchesConfig(folders=(folder,), patch=5, batch=2, workers=1)
        self.loader = PairLoader(
            PhotoList.find(config.folders), config, NoiseConfig().build(1), scale=1, channels=1, seed=1
        )
        self.after = after

    def batches(self, first, last, **named):
        for number, batch in enumerate(self.loader.batches(first, last, **named)):
            if number == self.after:
                for process in multiprocessing.active_children():
                    os.kill(process.pid, signal.SIGKILL)
            yield batch


def test_a_worker_that_is_killed_is_told_in_one_line(tmp_path):
    (tmp_path / "photos").mkdir()
    write(Picture(pixels=torch.rand(1, 40, 40)), tmp_path / "photos/a.png")
    with pytest.raises(RelumeError) as caught:
        loop(tmp_path / "run", Deadly(tmp_path / "photos", after=6), steps=12, save_every=4).run()
    said = str(caught.value)
    assert "a process that loads data was ended from outside after step " in said
    assert " of 12, perhaps for lack of memory (DataLoader worker" in said
    assert "the same command goes on from the last saved state" in said
    assert len(said.splitlines()) == 1
    assert read_progress(tmp_path / "run").step == 4
