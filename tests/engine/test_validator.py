# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math
import multiprocessing
import os
import pickle

import pytest
import torch
from torch import nn

from boxwright.engine.logs import Listener
from boxwright.engine.validator import validate
from boxwright.errors import ConfigError, ShapeError
from boxwright.evaluation.evaluator import EvaluationConfig
from boxwright.loading.collate import Batch
from boxwright.losses.image_level import ImageCriterion
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.classifier import Classifier
from boxwright.models.detector import Detector, DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.ops.letterbox import centre_crop, letterbox
from boxwright.presets.yolov8 import yolov8_criterion
from boxwright.results import GroundTruth, ImageTruth
from boxwright.structures import ImageOutputs, ImageTargets, Outputs, Predictions, Targets
from boxwright.vocabulary import Vocabulary

NAMES = ("a", "b", "c")
CPU = torch.device("cpu")
BOX = letterbox((80, 160), (64, 96))  # gain 0.6: 48 x 96, 8 px of padding above and below


class Oracle(Detector):
    """Answers with one cell of 32 px per image: the class is the image's first red value, the place its first green."""

    strides = (32,)
    num_classes = 3

    def __init__(self):
        nn.Module.__init__(self)

    def fold(self, *, auxiliary=True):
        return self

    def forward(self, images):
        grid = grid_for_image(tuple(images.shape[2:]), (32,))
        logits = torch.full((len(images), grid.points.shape[0], 3), -9.0)
        first = (images[:, :, 0, 0] * 255).round().long()
        logits[torch.arange(len(images)), first[:, 1], first[:, 0]] = 3.0
        sides = torch.full((*logits.shape[:2], 4), 0.5)
        return Outputs(Predictions(logits, sides, Distance(num_bins=1), grid))


def small_detector():
    torch.manual_seed(0)
    return DetectorConfig(
        backbone=CSPConfig(widths=(4, 8, 8, 16, 16), depths=(1, 1, 1, 1)),
        neck=PANConfig(widths=(8, 16, 16)),
        head=AnchorFreeConfig(num_classes=3),
    ).build()


def batch_of(positions, *, objects=2, pixels=None):
    """Images of a made-up dataset: everything about image i follows from i."""
    images, boxes, labels = [], [], []
    for position in positions:
        generator = torch.Generator().manual_seed(position)
        images.append(torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8))
        count = position % (objects + 1)
        centre = torch.rand(count, 2, generator=generator) * torch.tensor([64.0, 32.0]) + 16
        boxes.append(torch.cat((centre - 12, centre + 12), dim=1))
        labels.append(torch.randint(0, 3, (count,), generator=generator))
    return assemble(positions, torch.stack(images) if pixels is None else pixels, boxes, labels)


def assemble(positions, images, boxes, labels):
    slots = max(map(len, labels), default=0)
    padded = torch.zeros(len(positions), slots, 4)
    marks = torch.zeros(len(positions), slots, dtype=torch.int64)
    valid = torch.zeros(len(positions), slots, dtype=torch.bool)
    for image, (mine, classes) in enumerate(zip(boxes, labels, strict=True)):
        padded[image, : len(mine)], marks[image, : len(mine)], valid[image, : len(mine)] = mine, classes, True
    return Batch(
        images=images,
        targets=Targets(marks, padded, valid),
        indices=tuple(positions),
        paths=tuple(f"{position}.jpg" for position in positions),
        letterboxes=(BOX,) * len(positions),
        truths=tuple(
            GroundTruth(BOX.to_original(mine), classes, BOX.source) for mine, classes in zip(boxes, labels, strict=True)
        ),
    )


def oracle_batches(right):
    """Twelve images with one object in cell `i % 3` of the upper row; the oracle is told so where `right[i]`."""
    batches = []
    for start in range(0, 12, 4):
        positions = list(range(start, start + 4))
        images = torch.zeros(4, 3, 64, 96, dtype=torch.uint8)
        boxes, labels = [], []
        for n, position in enumerate(positions):
            cell, label = position % 3, position % 2
            images[n, 0, 0, 0], images[n, 1, 0, 0] = label, cell if right[position] else cell + 3
            boxes.append(torch.tensor([[32.0 * cell, 8, 32 * cell + 32, 32]]))  # what the padding leaves of the cell
            labels.append(torch.tensor([label]))
        batches.append(assemble(positions, images, boxes, labels))
    return batches


def run(model, loader, **options):
    settings = {
        "vocabulary": Vocabulary(names=NAMES),
        "config": EvaluationConfig(),
        "device": CPU,
        "precision": "fp32",
    } | options
    return validate(model, loader, **settings)


def test_a_model_that_is_always_right_gets_everything():
    result = run(Oracle(), oracle_batches([True] * 12)).result

    assert result.metrics["box/ap50_95"] == pytest.approx(1.0)
    assert result.images == result.instances == 12
    assert result.confusion.diagonal().tolist() == [6, 6, 0, 0]


def test_a_model_that_is_wrong_in_half_of_the_images_gets_half_the_recall():
    result = run(Oracle(), oracle_batches([i % 4 < 2 for i in range(12)])).result

    assert result.metrics["box/ar100"] == pytest.approx(0.5)
    # the cells below are wrong but equally confident: 3 right and 3 wrong of each class
    assert result.confusion.tolist()[0] == [3, 0, 0, 3]


def test_losses_are_means_over_images_of_the_criterion_on_the_same_model():
    model, criterion = small_detector().eval(), yolov8_criterion()
    batches = [batch_of([0, 1, 2, 3]), batch_of([4, 5])]

    losses = run(model, batches, criterion=criterion).losses

    expected = dict.fromkeys(losses, 0.0)
    with torch.no_grad():
        for batch in batches:
            components = criterion(model(batch.images.float() / 255), batch.targets).components
            for name in expected:
                expected[name] += float(components[name]) * len(batch.images) / 6
    assert set(losses) == {"main/box", "main/cls", "main/dfl"}
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=1e-3), name  # folding rounds
        assert value > 0


def test_without_criterion_there_are_no_losses():
    assert run(Oracle(), oracle_batches([True] * 12)).losses == {}


def test_the_model_keeps_mode_and_weights_and_bf16_is_close():
    model = small_detector().train()
    batches = [batch_of([0, 1, 2, 3])]
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    model(batches[0].images.float() / 255)  # with the statistics of no data all features vanish
    before = {name: value.clone() for name, value in model.state_dict().items()}

    full = run(model, batches, criterion=yolov8_criterion())
    half = run(model, batches, criterion=yolov8_criterion(), precision="bf16")

    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in full.losses.items():
        assert half.losses[name] == pytest.approx(value, rel=0.05)
    assert half.losses != full.losses


def test_images_without_objects_and_a_batch_of_them_only():
    validation = run(small_detector(), [batch_of([0, 3]), batch_of([1, 2])], criterion=yolov8_criterion())

    assert validation.result.instances == 3
    assert all(value == value and value >= 0 for value in validation.losses.values())


def test_progress_is_told():
    class Heard(Listener):
        def __init__(self):
            self.lines = []

        def stage(self, name, total):
            self.lines.append((name, total))

        def advance(self, done, values):
            self.lines.append((done, sorted(values)))

        def end_stage(self):
            self.lines.append("end")

    heard = Heard()
    run(Oracle(), oracle_batches([True] * 12), listener=heard)

    assert heard.lines == [("validate", 3), (1, ["images/s"]), (2, ["images/s"]), (3, ["images/s"]), "end"]


def test_training_batches_and_wrong_names_are_refused():
    batch = batch_of([1])
    bare = Batch(batch.images, batch.targets, batch.indices, batch.paths)

    with pytest.raises(ShapeError, match="use `val_loader`"):
        run(Oracle(), [bare])
    with pytest.raises(ConfigError, match="expected 3 names, one per class of the model, got 2"):
        run(Oracle(), [batch], vocabulary=Vocabulary(names=("a", "b")))


def rank_main(rank, world, port, shares, path):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    batches = [batch_of(positions) for positions in shares[rank]]
    validation = run(small_detector(), batches, criterion=yolov8_criterion())
    (path / f"{rank}.pickle").write_bytes(pickle.dumps(validation))
    torch.distributed.destroy_process_group()


def on_ranks(shares, port, path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=rank_main, args=(rank, len(shares), port, shares, path)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return [pickle.loads((path / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    alone = run(small_detector(), [batch_of([0, 1, 2, 3]), batch_of([4, 5, 6])], criterion=yolov8_criterion())

    shares = [[[0, 1], [4, 5]], [[2, 3], [6]]]  # one rank's part of the second batch is smaller
    first, second = on_ranks(shares, free_port(), tmp_path)

    assert first.result.metrics == second.result.metrics == pytest.approx(alone.result.metrics, rel=1e-6)
    assert first.losses == second.losses == pytest.approx(alone.losses, rel=1e-5)
    assert (first.result.images, second.result.images) == (7, 7)
    assert (first.result.confusion == alone.result.confusion).all()


@pytest.mark.slow
def test_ranks_with_unequal_numbers_of_batches_do_not_hang(tmp_path):
    shares = [[[0, 1], [4, 5], [6]], [[2, 3]]]

    first, second = on_ranks(shares, free_port(), tmp_path)

    assert first.losses == second.losses
    assert first.result.images == 7


def test_branches_that_only_training_supervises_stay_for_losses_only():
    class Folded(Oracle):
        def fold(self, *, auxiliary=True):
            asked.append(auxiliary)
            return self

    asked = []
    run(Folded(), oracle_batches([True] * 12))
    run(small_detector(), [batch_of([1])], criterion=yolov8_criterion())
    assert asked == [False]


class Runtime:
    """Stands for an exported file."""

    strides = (32,)
    num_classes = 3

    def __call__(self, images):
        return Oracle()(images)


def test_an_exported_model_is_measured_but_has_no_losses():
    result = run(Runtime(), oracle_batches([True] * 12)).result

    assert result.metrics["box/ap50_95"] == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="expected a network to compute losses of"):
        run(Runtime(), oracle_batches([True] * 12), criterion=yolov8_criterion())


def test_classifiers_have_top_1_and_the_loss_of_their_criterion():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 2])
    model = FirstPixel()
    images[:, 0, 0, 0] = torch.tensor([0, 1, 2, 0], dtype=torch.uint8)  # the last is wrong
    place = centre_crop((20, 30), 8)
    batches = [
        Batch(
            images=images[rows],
            targets=ImageTargets(labels[rows]),
            indices=tuple(range(4))[rows],
            paths=("a.jpg",) * 2,
            letterboxes=(place,) * 2,
            truths=tuple(ImageTruth(int(label)) for label in labels[rows]),
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    vocabulary = Vocabulary(task="classify", names=NAMES, exclusive=True)

    found = run(model, batches, vocabulary=vocabulary, criterion=ImageCriterion())

    assert found.result.metrics["top1"] == 3 / 4
    assert found.result.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    # logits of 2 for the chosen class: -log(e^2 / (e^2 + 2)) where right, 2 more where wrong
    right = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert found.losses == {"main/cls": pytest.approx(right + 2 / 4, rel=1e-5)}


class FirstPixel(Classifier):
    """Answers the class that the first red value names."""

    num_classes = 3

    def __init__(self):
        nn.Module.__init__(self)

    def fold(self, *, auxiliary=True):
        return self

    def forward(self, images, targets=None):
        first = (images[:, 0, 0, 0] * 255).round().long()
        return ImageOutputs(2 * nn.functional.one_hot(first, 3).float())
