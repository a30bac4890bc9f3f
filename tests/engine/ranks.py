# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What every rank of the distributed tests runs: `torchrun ... ranks.py TASK RECIPE OUT`, or plainly for one rank."""

import dataclasses
import sys
from pathlib import Path

import torch

from boxwright.config import from_yaml
from boxwright.engine.assemble import assemble
from boxwright.engine.distributed import Ranks, process_group
from boxwright.engine.logs import Listener
from boxwright.engine.recipe import Recipe
from boxwright.engine.step import Stepper
from boxwright.engine.trainer import Trainer

BATCHES = 3  # nominal batch 16: a step after two batches of 8, one batch in flight at the end


def steps(recipe: Recipe, out: Path) -> None:
    """Both cases in one start of the processes: every image with its labels, and half of each batch without any."""
    torch.use_deterministic_algorithms(True)
    with process_group("cpu") as ranks:
        take_steps(recipe, ranks, out / "all.pt", half_without_labels=False)
        take_steps(recipe, ranks, out / "half.pt", half_without_labels=True)


def take_steps(recipe: Recipe, ranks: Ranks, out: Path, *, half_without_labels: bool) -> None:
    """Learns from the first batches with fixed batch statistics; rank 0 saves weights and leftover gradients."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    parts = assemble(recipe, ranks=ranks, device=device, folder=out.parent, listener=Listener())
    parts.model.train()
    for module in parts.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    start = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    parts.train.set_epoch(0)
    losses = []
    for iteration, batch in zip(range(BATCHES), parts.train, strict=False):
        if half_without_labels:
            # The second half of the global batch: all of rank 1's share.
            first = {(1, 0): len(batch) // 2, (2, 0): len(batch), (2, 1): 0}[(ranks.world, ranks.rank)]
            valid = batch.targets.valid.clone()
            valid[first:] = False
            batch = dataclasses.replace(batch, targets=dataclasses.replace(batch.targets, valid=valid))
        breakdown = parts.stepper.run(batch, iteration, 1, 0.0)
        values = torch.stack(list(breakdown.components.values())).detach()
        if ranks.world > 1:
            torch.distributed.all_reduce(values)
        losses.append(values)
    gradients = parts.stepper.leftover_gradients()
    parts.stepper.close()
    if ranks.first:
        moved = {name: tensor - start[name] for name, tensor in parts.model.state_dict().items()}
        torch.save({"moved": moved, "gradients": gradients, "losses": torch.stack(losses)}, out)


def fit(recipe: Recipe, out: Path) -> None:
    """A whole run; rank 1 reports every file it opens for writing in the run folder."""
    import os

    rank = int(os.environ.get("RANK", "0"))
    written: list[str] = []

    def note(event: str, arguments: tuple) -> None:
        changes = event in ("os.mkdir", "os.rename", "os.remove")
        opens = event == "open" and any(letter in str(arguments[1] or "") for letter in "wax+")
        if (changes or opens) and str(out) in str(arguments[0]):
            written.append(f"{event} {arguments[0]}")

    if rank:
        sys.addaudithook(note)
    result = Trainer(recipe, out).fit()
    report = out.parent / f"rank-{rank}.txt"
    report.write_text(f"{result.metrics['box/ap50_95']!r}\n" + "\n".join(written))


def fail(recipe: Recipe, out: Path) -> None:
    """Rank 1 raises in the middle of its second batch, while rank 0 waits for its gradients."""
    import os

    original = Stepper.run

    def run(self, batch, iteration, epoch, progress):
        if os.environ["RANK"] == "1" and iteration == 1:
            raise RuntimeError("this rank fails")
        return original(self, batch, iteration, epoch, progress)

    Stepper.run = run
    Trainer(recipe, out).fit()


if __name__ == "__main__":
    task, recipe_file, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    recipe = from_yaml(Recipe, recipe_file.read_text())
    {"steps": steps, "fit": fit, "fail": fail}[task](recipe, target)
