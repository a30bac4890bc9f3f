# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import cv2
import numpy as np
import pytest
import torch
from torch import nn

from boxwright.engine.logs import Listener
from boxwright.engine.predictor import Predictor
from boxwright.errors import ConfigError
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.detector import Detector, DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import ImageOutputs, Outputs, Predictions
from boxwright.vocabulary import Vocabulary

NAMES = ("red", "green", "blue")
IDS = (4, 7, 9)


class ColourFinder(Detector):
    """Finds pure red, green and blue cells of 32 px: the box is the cell, the score the share of the colour."""

    def __init__(self):
        nn.Module.__init__(self)
        self.calls = []

    strides = (32,)
    num_classes = 3

    def fold(self, *, auxiliary=True):
        return self

    def forward(self, images):
        self.calls.append(tuple(images.shape))
        grid = grid_for_image(tuple(images.shape[2:]), (32,))
        share = nn.functional.avg_pool2d(images, 32).flatten(2).transpose(1, 2)
        others = share.sum(2, keepdim=True) - share
        purity = (share - others).clamp(1e-4, 1 - 1e-4)
        sides = torch.full((*purity.shape[:2], 4), 0.5)  # half a stride to each side
        return Outputs(Predictions(torch.logit(purity), sides, Distance(num_bins=1), grid))


def picture(height, width, patches):
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in patches:
        image[y1:y2, x1:x2, channel] = 255
    return image


def real_detector(classes=3):
    torch.manual_seed(0)
    model = DetectorConfig(
        backbone=CSPConfig(widths=(4, 8, 8, 16, 16), depths=(1, 1, 1, 1)),
        neck=PANConfig(widths=(8, 16, 16)),
        head=AnchorFreeConfig(num_classes=classes),
    ).build()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 1.5)
    return model


class Heard(Listener):
    def __init__(self):
        self.lines = []

    def stage(self, name, total):
        self.lines.append(("stage", name, total))

    def advance(self, done, values):
        self.lines.append(("advance", done))

    def end_stage(self):
        self.lines.append(("end",))

    def message(self, text, severity="info"):
        self.lines.append((severity, text))


def test_boxes_are_pixels_of_the_original_image_best_first_with_names_and_ids():
    # 240 x 320 to 96 x 128 (gain 0.4): cells of 32 px are 80 px there
    image = picture(240, 320, [(0, (80, 80, 160, 160)), (2, (240, 160, 320, 240))])
    image[160:240, 240:320, 1] = 40  # the blue cell is less pure

    (found,) = Predictor(ColourFinder(), Vocabulary(names=NAMES, class_ids=IDS), imgsz=128, precision="fp32")(image)

    assert [row["name"] for row in found.to_dicts()] == ["red", "blue"]
    assert [row["class_id"] for row in found.to_dicts()] == [4, 9]
    torch.testing.assert_close(found.boxes, torch.tensor([[80.0, 80, 160, 160], [240, 160, 320, 240]]))
    assert found.scores[0] > 0.99 > found.scores[1] > 0.5
    assert (found.image_size, found.path) == ((240, 320), None)


def test_images_share_a_batch_when_their_smallest_rectangles_agree_and_keep_their_order():
    model = ColourFinder()
    images = [picture(64, 128, []), picture(128, 128, []), picture(128, 256, []), picture(130, 128, [])]

    found = Predictor(model, Vocabulary(names=NAMES), imgsz=128, precision="fp32")(images)

    assert [one.image_size for one in found] == [(64, 128), (128, 128), (128, 256), (130, 128)]
    assert model.calls == [(2, 3, 64, 128), (2, 3, 128, 128)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_result_does_not_depend_on_its_companions(precision):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (60 + 9 * i, 90, 3), dtype=np.uint8) for i in range(5)]
    predictor = Predictor(real_detector(), Vocabulary(names=NAMES), imgsz=64, conf=0.0, batch=3, precision=precision)

    together = predictor(images)
    alone = [predictor(image)[0] for image in images]

    for one, other in zip(together, alone, strict=True):
        assert len(one) == len(other) > 10
        # batches of other sizes may choose other kernels, which round differently
        tolerance = 1e-3 if precision == "fp32" else 0.5
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=tolerance)
        torch.testing.assert_close(one.boxes.sum(), other.boxes.sum(), rtol=0.02, atol=0)


def test_equals_the_unfolded_model_on_the_letterboxed_image():
    model = real_detector().eval()
    image = np.random.default_rng(1).integers(0, 256, (96, 64, 3), dtype=np.uint8)

    (found,) = Predictor(model, Vocabulary(names=NAMES), imgsz=96, conf=0.0, iou=1.0, max_det=10_000, precision="fp32")(
        image
    )

    with torch.no_grad():
        preds = model(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255).final
    scores = preds.logits.sigmoid().amax(dim=2)[0]
    assert len(found) == len(scores)
    torch.testing.assert_close(found.scores, scores.sort(descending=True).values, rtol=1e-4, atol=1e-6)
    best = preds.boxes[0, scores.argmax()].clamp(min=0)
    best = torch.minimum(best, torch.tensor([64.0, 96, 64, 96]))
    torch.testing.assert_close(found.boxes[0], best, rtol=0, atol=1e-2)


def test_the_given_model_keeps_mode_weights_and_gradients():
    model = real_detector().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    found = Predictor(model, Vocabulary(names=NAMES), imgsz=64, conf=0.0)(picture(64, 64, []))

    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).requires_grad
    found[0].boxes.add_(1)  # ordinary tensors: usable outside inference mode


def test_classes_are_chosen_by_name_or_index():
    image = picture(64, 64, [(0, (0, 0, 32, 32)), (1, (32, 0, 64, 32)), (2, (0, 32, 32, 64))])

    def names(classes):
        (found,) = Predictor(ColourFinder(), Vocabulary(names=NAMES), imgsz=64, classes=classes, precision="fp32")(
            image
        )
        return {row["name"] for row in found.to_dicts()}

    assert names(None) == {"red", "green", "blue"}
    assert names(["blue", 0]) == {"red", "blue"}
    assert names([]) == set()


def test_a_long_source_is_read_batch_by_batch():
    predictor = Predictor(ColourFinder(), Vocabulary(names=NAMES), imgsz=64, batch=2)
    stream = predictor.stream([picture(64, 64, [(0, (0, 0, 32, 32))]) for _ in range(5)])

    first = next(stream)
    assert len(predictor.model.calls) == 1
    assert first.image[0, 0].tolist() == [255, 0, 0]
    assert len(list(stream)) == 4
    assert [call[0] for call in predictor.model.calls] == [2, 2, 1]


def test_progress_and_skipped_files_are_told(tmp_path):
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), picture(64, 64, []))
    (tmp_path / "b.png").write_bytes(b"nothing")
    heard = Heard()

    found = Predictor(ColourFinder(), Vocabulary(names=NAMES), imgsz=64, listener=heard)(tmp_path)

    assert [one.path for one in found] == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    assert heard.lines[0] == ("stage", "predict", 3)
    warnings = [line[1] for line in heard.lines if line[0] == "warning"]
    assert "b.png" in warnings[0]
    assert warnings[1] == "1 of the files could not be read and was left out"
    assert ("advance", 2) in heard.lines
    assert heard.lines.count(("end",)) == 1


def test_a_closed_stream_ends_its_stage():
    heard = Heard()
    stream = Predictor(ColourFinder(), Vocabulary(names=NAMES), imgsz=64, batch=1, listener=heard).stream(
        [picture(64, 64, [])] * 3
    )

    next(stream)
    stream.close()

    assert heard.lines[-1] == ("end",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imgsz": 100}, "imgsz: expected a multiple of 32, got 100; the closest are 96 and 128"),
        ({"imgsz": 8}, "imgsz: expected a multiple of 32, got 8; the closest is 32"),
        ({"conf": 1.5}, "conf: expected a number from 0 to 1, got 1.5"),
        ({"iou": -0.1}, "iou: expected a number from 0 to 1"),
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"classes": ["gren"]}, "no class is named 'gren'; did you mean 'green'"),
        ({"classes": [3]}, "classes: expected an index from 0 to 2, got 3"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Predictor(ColourFinder(), Vocabulary(names=NAMES), **options)


def test_names_must_fit_the_model():
    with pytest.raises(ConfigError, match="expected 3 names, one per class of the model, got 2"):
        Predictor(ColourFinder(), Vocabulary(names=NAMES[:2]))


class Runtime:
    """Stands for an exported file: it can be called, and knows its strides and classes, nothing else."""

    strides = (32,)
    num_classes = 3

    def __init__(self):
        self.network = ColourFinder()

    def __call__(self, images):
        return self.network(images)


def test_an_exported_model_is_called_as_it_is_and_may_ask_for_squares():
    image = picture(64, 128, [(0, (0, 0, 32, 32))])
    model = Runtime()

    (smallest,) = Predictor(model, Vocabulary(names=NAMES), imgsz=128, precision="fp32")(image)
    (square,) = Predictor(model, Vocabulary(names=NAMES), imgsz=128, precision="fp32", minimal=False)(image)

    assert model.network.calls == [(1, 3, 64, 128), (1, 3, 128, 128)]
    for found in (smallest, square):
        torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 32, 32]]))


def test_stretched_images_are_mapped_back_by_axis():
    # 64 x 256 to 128 x 128: twice as high, half as wide
    image = picture(64, 256, [(1, (64, 16, 128, 32))])
    model = ColourFinder()

    (found,) = Predictor(model, Vocabulary(names=NAMES), imgsz=128, precision="fp32", fit="stretch")(image)

    assert model.calls == [(1, 3, 128, 128)]
    torch.testing.assert_close(found.boxes, torch.tensor([[64.0, 16, 128, 32]]))


class MiddleColour(nn.Module):
    """Scores the mean red, green and blue of what it sees."""

    strides = (1,)
    num_classes = 3

    def forward(self, images):
        self.seen = images
        return ImageOutputs(images.mean((2, 3)) * 10)


def test_classifiers_see_the_middle_square_and_give_one_answer():
    image = picture(60, 120, [(0, (0, 0, 30, 60)), (2, (30, 0, 90, 60)), (0, (90, 0, 120, 60))])
    model = MiddleColour()
    vocabulary = Vocabulary(task="classify", names=NAMES, class_ids=IDS, exclusive=True)
    predictor = Predictor(model, vocabulary, imgsz=30, precision="fp32", fit="crop")

    (seen,) = predictor.stream(image)

    assert model.seen.shape == (1, 3, 30, 30)
    assert model.seen[0, 2].min() == 1  # blue only: the sides are cut off
    assert seen.found.top(1)[0][0] == "blue"
    assert seen.found.class_ids == IDS
    assert seen.found.scores.sum().item() == pytest.approx(1)
    with pytest.raises(ConfigError, match="expected objects, got a classification"):
        _ = seen.detections


def test_branches_that_only_training_supervises_are_left_out():
    class Folded(ColourFinder):
        def fold(self, *, auxiliary=True):
            self.asked = auxiliary
            return self

    model = Folded()
    Predictor(model, Vocabulary(names=NAMES))
    assert model.asked is False
