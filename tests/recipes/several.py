"""Trains some tiny recipes one after another, in as many processes as a launcher has started.

    python several.py PHOTOS FOLDER

Each recipe's run lies in FOLDER under its name. Beside them, `outcome-RANK.json` says what each process made
of a step in fp16 whose loss is no number in the first process.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from relume.recipes.runner import Run, find_recipe
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import LoopConfig
from relume.train.stepping import Stepper

EVERY = {"steps": 8, "data.batch": 4, "threads": 1, "log_every": 4, "save_every": 4, "accumulate": 2,
         "schedule.warmup": 1, "start": None, "device": "cpu"}  # fmt: skip

RECIPES = {
    "cfsr-x2": {
        "data.patch": 8, "network.width": 8, "network.depths": [1], "network.kernel_size": 3,
        "degradation": "bsrgan",
    },
    "espcn-x3": {
        "data.patch": 9, "surgery": ["tunable"], "objective": "multi-loss",
        "objective.aims": [["charbonnier"], ["mse"]],  # smooth: no sign hangs on how sums are rounded
    },
    "mhnafnet-small": {
        "data.patch": 16, "network.width": 4, "network.encoders": [1], "network.decoders": [1],
        "network.middle": 1, "network.patch": [16, 16], "degradation.length": [2.0, 4.0],
    },
}  # fmt: skip


def overflown(accelerator):
    torch.manual_seed(0)
    config = LoopConfig(precision="fp16", device="cpu")
    stepper = Stepper(nn.Conv2d(1, 1, 1), PixelConfig().build(), config, accelerator)
    low = torch.rand(2, 1, 4, 4)
    if accelerator.is_main_process:
        low = low * float("nan")
    outcome = stepper.step({"input": low, "target": torch.rand(2, 1, 4, 4)}, 0)
    return {"broken": outcome.broken, "overflow": outcome.overflow}


def main():
    photos, folder = sys.argv[1], Path(sys.argv[2])
    for variant, changes in RECIPES.items():
        changes = {**EVERY, "data.folders": [photos], **changes}
        recipe = find_recipe(variant, "cpu").override(changes, where="recipe")
        (folder / variant).mkdir(parents=True, exist_ok=True)
        # Not Run.train, which lets the processes part.
        Run(recipe, folder / variant, command="test").loop.run()
    accelerator = Accelerator(cpu=True)
    outcome = overflown(accelerator)
    (folder / f"outcome-{accelerator.process_index}.json").write_text(json.dumps(outcome))
    # A process may not leave while another still talks to it.
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
