# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One training step: what is summed, when the optimizer moves, how sizes change."""

import pytest
import torch

from boxwright.engine.assemble import assemble
from boxwright.engine.distributed import Ranks
from boxwright.engine.logs import Listener
from boxwright.engine.step import multi_scale_size, resized, to_network
from boxwright.loading.collate import Batch
from boxwright.structures import Targets


def parts_of(recipe, folder):
    torch.manual_seed(0)
    parts = assemble(recipe, ranks=Ranks(), device=torch.device("cpu"), folder=folder, listener=Listener())
    parts.model.train()
    return parts


def make_batch(size=(64, 96)):
    targets = Targets(
        labels=torch.zeros(1, 1, dtype=torch.int64),
        boxes=torch.tensor([[[8.0, 16.0, 48.0, 32.0]]]),
        valid=torch.ones(1, 1, dtype=torch.bool),
    )
    return Batch(torch.full((1, 3, *size), 200, dtype=torch.uint8), targets, (0,), ("a.png",))


def test_images_become_floats_from_zero_to_one():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, 4, 4)

    made = to_network(images, torch.device("cpu"), channels_last=True)

    assert made.dtype == torch.float32
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert made[1, :, 3, 3].tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_resized_scales_boxes_with_the_image():
    batch = resized(make_batch((64, 96)), (32, 192))

    assert batch.images.shape == (1, 3, 32, 192)
    assert batch.targets.boxes.tolist() == [[[16.0, 8.0, 96.0, 16.0]]]
    assert (batch.images == 200).all()


def test_multi_scale_sizes_are_multiples_of_the_stride_within_half_and_one_and_a_half():
    sizes = {multi_scale_size((320, 320), 32, seed=0, iteration=i) for i in range(200)}

    assert {height for height, _ in sizes} == set(range(160, 481, 32))
    assert all(height == width for height, width in sizes)
    assert multi_scale_size((320, 320), 32, seed=1, iteration=7) == multi_scale_size(
        (320, 320), 32, seed=1, iteration=7
    )


def test_optimizer_moves_after_the_nominal_batch_and_gradients_are_summed(tiny_recipe, tmp_path):
    # Batches of 8, nominal batch 24: a step is due when three batches passed since iteration -1.
    parts = parts_of(tiny_recipe("train.nominal_batch=24", "train.warmup_epochs=0.0"), tmp_path)
    stepper = parts.stepper
    weight = parts.model.head.class_branches[0][2].bias
    start = weight.detach().clone()
    moved, gradients = [], []
    for iteration, batch in enumerate(parts.train):
        stepper.run(batch, iteration, 1, 0.0)
        moved.append(not torch.equal(weight, start))
        gradients.append(None if weight.grad is None else weight.grad.clone())

    assert moved == [False, False, True]
    assert stepper.last_step == 2
    assert stepper.ema.updates == 1
    assert gradients[2] is None  # zeroed after the step
    # A sum, not a mean: what the second batch added is its gradient alone, since the weights have not moved.
    alone = parts_of(tiny_recipe("train.nominal_batch=24", "train.warmup_epochs=0.0"), tmp_path)
    alone.stepper.run(list(alone.train)[1], 0, 1, 0.0)
    second = alone.model.head.class_branches[0][2].bias.grad
    torch.testing.assert_close(gradients[1] - gradients[0], second, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_to_the_global_norm(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        "train.nominal_batch=8", "train.warmup_epochs=0.0", "train.optimizer=sgd", "train.lr0=1.0",
        "train.momentum=0.0", "train.clip_norm=0.5", "train.weight_decay=0.0",
    )  # fmt: skip
    parts = parts_of(recipe, tmp_path)
    before = [parameter.detach().clone() for parameter in parts.model.parameters()]

    parts.stepper.run(next(iter(parts.train)), 0, 1, 0.0)

    moves = [(new - old).flatten() for new, old in zip(parts.model.parameters(), before, strict=True)]
    # plain SGD at rate 1 moves by the clipped gradient itself
    assert torch.cat(moves).norm().item() == pytest.approx(0.5, rel=1e-4)
