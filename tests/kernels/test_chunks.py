# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import torch

from boxwright.kernels.chunks import image_chunks

CPU = torch.device("cpu")


def test_pieces_cover_every_image_once_and_stay_small():
    sizes = [5, 1, 1, 9, 0, 0, 3, 3, 20, 1]

    pieces = image_chunks(sizes, CPU, cache_elements=6)

    covered = [image for piece in pieces for image in range(piece.start, piece.stop)]
    assert covered == list(range(len(sizes)))
    assert all(sum(sizes[piece]) <= 6 or piece.stop - piece.start == 1 for piece in pieces)


def test_an_accelerator_works_on_everything_at_once():
    assert image_chunks([1 << 20] * 16, torch.device("cuda")) == [slice(0, 16)]


def test_no_images_are_one_empty_piece():
    assert image_chunks([], CPU) == [slice(0, 0)]
