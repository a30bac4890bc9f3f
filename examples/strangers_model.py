# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Trains a model that knows nothing of boxwright with boxwright's YOLOv8 loss: python examples/strangers_model.py.

The model, the data and the loop are a stranger's; of ours there are three calls: the criterion, and two adapters.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from boxwright.losses import from_yolov8_maps, targets_from_rows, yolov8_detect

STRIDES, BINS, CLASSES, SIZE = (8, 16), 8, 2, (64, 96)  # SIZE: (height, width) px


class Plain(nn.Module):
    """A small network with a head as YOLOv8's: raw maps (B, 4 * BINS + CLASSES, rows, columns), one per stride."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 48, 64)
        self.stem = nn.Sequential(*(self._half(widths[i], widths[i + 1]) for i in range(3)))
        self.deeper = self._half(widths[3], widths[4])
        self.heads = nn.ModuleList(nn.Conv2d(width, 4 * BINS + CLASSES, 1) for width in widths[3:])
        for head in self.heads:
            nn.init.constant_(head.bias[4 * BINS :], -4.0)  # at first nearly every cell is background

    @staticmethod
    def _half(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())

    def forward(self, images: Tensor) -> list[Tensor]:
        """One raw map per stride."""
        fine = self.stem(images)
        return [head(part) for head, part in zip(self.heads, (fine, self.deeper(fine)), strict=True)]


def scenes(batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: images with bright rectangles on noise, and rows (image, class, cx, cy, w, h), normalised.

    Class 0 is red and lies, class 1 is blue and stands.
    """
    source = torch.Generator().manual_seed(seed)
    height, width = SIZE
    while True:
        images, rows = torch.rand(batch, 3, height, width, generator=source) * 0.3, []
        for image in range(batch):
            for label in torch.randint(CLASSES, (2,), generator=source).tolist():
                w, h = (28, 14) if label == 0 else (14, 28)
                x, y = (int(torch.randint(room, (), generator=source)) for room in (width - w, height - h))
                images[image, 2 * label, y : y + h, x : x + w] += 0.7
                rows.append((image, label, (x + w / 2) / width, (y + h / 2) / height, w / width, h / height))
        yield images, torch.tensor(rows)


def train(steps: int, batch: int = 8, seed: int = 0) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(seed)
    model, criterion, losses = Plain(), yolov8_detect(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _, (images, rows) in zip(range(steps), scenes(batch, seed), strict=False):
        maps = model(images)
        outputs = from_yolov8_maps(maps, STRIDES, num_classes=CLASSES, num_bins=BINS, image_size=SIZE)
        targets = targets_from_rows(
            rows[:, 0], rows[:, 1], rows[:, 2:], batch=batch, image_size=SIZE, num_classes=CLASSES
        )
        loss = criterion(outputs, targets)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item() / batch)
    return losses


def main() -> None:
    """Prints the loss as it falls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    losses = train(parser.parse_args().steps)
    for step in range(0, len(losses), 20):
        print(f"step {step:4d}  loss per image {losses[step]:.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
