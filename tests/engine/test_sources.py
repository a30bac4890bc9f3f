# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import cv2
import numpy as np
import pytest

from boxwright.engine.sources import Sources
from boxwright.errors import DataError, ShapeError


def pixels(seed, height=24, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path, seed=0, **size):
    cv2.imwrite(str(path), pixels(seed, **size)[..., ::-1])  # OpenCV writes BGR
    return path


def write_video(path, frames=5):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:20] = pixels(number, 20, 64)  # so that a frame weighs more than the header
        image[20:, :, 2] = min(40 * number, 255)  # red in BGR
        writer.write(image)
    writer.release()
    return path


def test_an_image_file_is_rgb_with_its_path(tmp_path):
    path = write_image(tmp_path / "a.png", seed=3)

    (frame,) = Sources(str(path))

    assert np.array_equal(frame.image, pixels(3))
    assert frame.path == str(path)


def test_a_folder_gives_its_own_images_by_name(tmp_path):
    for name in ("b.PNG", "a.png", "c.bmp"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "deeper").mkdir()
    write_image(tmp_path / "deeper" / "d.png")

    sources = Sources(tmp_path)

    assert sources.total == 3
    assert [frame.path for frame in sources] == [str(tmp_path / name) for name in ("a.png", "b.PNG", "c.bmp")]


def test_a_pattern_reaches_subfolders(tmp_path):
    (tmp_path / "one" / "two").mkdir(parents=True)
    deep = write_image(tmp_path / "one" / "two" / "x.png")
    top = write_image(tmp_path / "y.png")
    write_image(tmp_path / "z.bmp")

    assert [frame.path for frame in Sources(f"{tmp_path}/**/*.png")] == sorted([str(deep), str(top)])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    path = write_image(tmp_path / "shot[1].png")

    assert [frame.path for frame in Sources(path)] == [str(path)]


def test_a_video_gives_numbered_rgb_frames_one_at_a_time(tmp_path):
    path = write_video(tmp_path / "clip.avi")
    sources = Sources(path)

    frames = iter(sources)
    first = next(frames)
    assert (sources.frames_read, first.path) == (1, f"{path}#0")  # nothing is read ahead

    rest = list(frames)
    assert sources.total is None
    assert [frame.path for frame in rest] == [f"{path}#{number}" for number in (1, 2, 3, 4)]
    reds = [int(frame.image[40, 20, 0]) for frame in (first, *rest)]
    assert np.allclose(reds, [0, 40, 80, 120, 160], atol=12)  # MJPG is lossy
    assert int(rest[-1].image[40, 20, 2]) < 20


def test_arrays_and_lists_of_anything(tmp_path):
    path = write_image(tmp_path / "a.png", seed=1)
    grey = pixels(2)[..., 0]

    frames = list(Sources([pixels(0), [path, str(path)], grey]))

    assert [frame.path for frame in frames] == [None, str(path), str(path), None]
    assert np.array_equal(frames[0].image, pixels(0))
    assert np.array_equal(frames[3].image, np.stack([grey] * 3, axis=2))


def test_a_pil_image_is_taken_as_rgb():
    module = pytest.importorskip("PIL.Image")

    (frame,) = Sources(module.fromarray(pixels(4)).convert("RGBA"))

    assert np.array_equal(frame.image, pixels(4))


def test_a_broken_image_in_a_folder_is_reported_counted_and_left_out(tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    (tmp_path / "c.avi").write_bytes(b"RIFF but no video")
    write_image(tmp_path / "d.png")
    told = []

    sources = Sources(tmp_path, told.append)

    assert [frame.path for frame in sources] == [str(tmp_path / "a.png"), str(tmp_path / "d.png")]
    assert sources.skipped == 2
    assert str(tmp_path / "b.jpg") in told[0]
    assert str(tmp_path / "c.avi") in told[1]


def test_a_broken_image_named_by_the_user_is_an_error_also_in_a_list(tmp_path):
    good, bad = write_image(tmp_path / "a.png"), tmp_path / "b.jpg"
    bad.write_bytes(b"nothing")

    for source in (bad, [good, bad]):
        with pytest.raises(DataError, match=r"b\.jpg"):
            list(Sources(source))


def test_a_folder_of_broken_images_only_is_an_error(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"nothing")

    with pytest.raises(DataError, match="1 files were found and none could be read"):
        list(Sources(tmp_path))


def test_a_truncated_video_is_reported(tmp_path):
    path = write_video(tmp_path / "clip.avi", frames=20)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told = []

    frames = list(Sources(path, told.append))

    assert 0 < len(frames) < 20
    assert told == [f"{path}: {len(frames)} of 20 announced frames could be decoded; the rest is left out"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all.png", "nowhere/at/all.png: no such file or folder"),
        ("nowhere/*.png", "no image or video matches this pattern"),
        ("https://example.com/a.jpg", "makes no network calls"),
        (7, "got int"),
    ],
)
def test_what_cannot_be_a_source_is_said(source, message):
    with pytest.raises(DataError, match=message.replace("*", r"\*")):
        Sources(source)


def test_empty_folders_and_other_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no images or videos directly in this folder"):
        Sources(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"'\.txt' is neither an image nor a video suffix"):
        Sources(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros(4)],
)
def test_an_array_that_is_not_rgb_uint8_is_named_by_shape_and_type(array):
    with pytest.raises(ShapeError, match=r"expected RGB pixels \(height, width, 3\) uint8, got \("):
        Sources(array)
