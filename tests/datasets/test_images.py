# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Image files: the decoding policy, spec/datasets 6, cases 38 to 50."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.images import image_size, inspect_image, read_image
from boxwright.datasets.policy import ImagePolicy
from boxwright.errors import DataError

GOOD = "1 0.25 0.25 0.1 0.1\n"
LOSSLESS = {"PNG": {}, "TIFF": {}, "BMP": {}, "WEBP": {"lossless": True, "exact": True}}
SUFFIX = {"PNG": "png", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp", "JPEG": "jpg", "MPO": "mpo"}


@pytest.fixture
def put(tmp_path):
    def write(data, name="a.png"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def inspect(path, **policy):
    header, problems = inspect_image(path, "a", ImagePolicy(**policy))
    return header, [(problem.code, problem.severity) for problem in problems]


def png_header(width, height, bits=8):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", list(LOSSLESS))
def test_lossless_types_give_exact_rgb(kind, put, encode, make_picture):
    path = put(encode(make_picture(), kind, **LOSSLESS[kind]), f"a.{SUFFIX[kind]}")

    np.testing.assert_array_equal(read_image(path), make_picture())
    assert image_size(path) == (40, 60)
    assert inspect(path)[1] == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_case47_orientation_is_applied(kind, orientation, put, encode, make_picture):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else LOSSLESS[kind]
    path = put(encode(make_picture(40, 60), kind, exif=exif, **options), f"a.{SUFFIX[kind]}")
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    pixels = read_image(path)

    assert pixels.shape == wanted.shape
    assert np.abs(pixels.astype(int) - wanted).max() <= 2  # two JPEG decoders round differently
    assert image_size(path) == wanted.shape[:2] == ((60, 40) if orientation >= 5 else (40, 60))


@pytest.mark.parametrize(
    ("mode", "kind", "wanted"),
    [
        ("L", "PNG", (77, 77, 77)),
        ("L", "JPEG", (77, 77, 77)),
        ("1", "PNG", (255, 255, 255)),
        ("1", "TIFF", (255, 255, 255)),
        ("LA", "PNG", (77, 77, 77)),
        ("P", "PNG", (255, 0, 0)),
        ("RGBA", "PNG", (200, 50, 0)),
        ("RGBA", "WEBP", (200, 50, 0)),
        ("CMYK", "JPEG", (255, 0, 0)),
        ("CMYK", "TIFF", (255, 0, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_case48_every_mode_becomes_rgb(mode, kind, wanted, put, encode):
    if mode == "P":
        image = Image.new("RGB", (30, 20), (255, 0, 0)).convert("P")
    else:
        colours = {"L": 77, "1": 1, "LA": (77, 0), "RGBA": (200, 50, 0, 0), "CMYK": (0, 255, 255, 0)}
        image = Image.new(mode, (30, 20), colours[mode])
    path = put(encode(image, kind, **LOSSLESS.get(kind, {})), f"a.{SUFFIX[kind]}")

    pixels = read_image(path)

    assert pixels.shape == (20, 30, 3)
    assert np.abs(pixels.astype(int) - wanted).max() <= 1
    assert inspect(path)[1] == []


def test_alpha_is_composited_over_white_on_request(put, encode):
    path = put(encode(Image.new("RGBA", (30, 20), (200, 50, 0, 51)), "PNG"))

    assert read_image(path)[0, 0].tolist() == [200, 50, 0]
    assert read_image(path, ImagePolicy(alpha="composite"))[0, 0].tolist() == [244, 214, 204]  # 0.2 c + 0.8 * 255


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_case48_sixteen_bits_use_the_high_byte_and_warn_once(suffix, yolo):
    pixels = np.tile(np.arange(60, dtype=np.uint16) * 1000, (40, 1))[..., None].repeat(3, axis=2)
    yolo.write({"a.jpg": GOOD})
    for name in "xyz":
        yolo.image(f"train/{name}{suffix}", cv2.imencode(suffix, pixels)[1].tobytes())
        yolo.label(f"train/{name}.txt", GOOD)

    records = yolo.scan()

    (problem,) = records.report.problems
    assert (problem.code, problem.severity) == ("image_16bit", "warning")
    assert "so are 2 more" in problem.message
    path = next(record.image for record in records.records if record.image.suffix == suffix)
    np.testing.assert_array_equal(read_image(path)[0, :, 0], pixels[0, :, 0] >> 8)
    stretched = read_image(path, ImagePolicy(depth16="percentile"))[0, :, 0]
    assert (stretched[0], stretched[-1]) == (0, 255)
    assert abs(int(stretched[30]) - 130) <= 2  # 30000 between the percentiles 590 and 58410: 0.509 * 255


def test_pfm_floats_become_bytes(put):
    path = put(b"PF\n30 20\n-1.0\n" + np.full((20, 30, 3), (0, 0.5, 2), np.float32).tobytes(), "a.pfm")

    assert read_image(path)[0, 0].tolist() == [0, 128, 255]
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize(
    ("kind", "severity"), [("WEBP", "warning"), ("TIFF", "warning"), ("PNG", "warning"), ("MPO", "note")]
)
def test_several_frames_use_the_first_and_say_so(kind, severity, put, encode, make_picture):
    first, second = (Image.fromarray(make_picture(seed=seed)) for seed in (1, 2))
    options = {"quality": 100, "subsampling": 0} if kind == "MPO" else LOSSLESS[kind]
    path = put(encode(first, kind, save_all=True, append_images=[second], **options), f"a.{SUFFIX[kind]}")

    assert inspect(path)[1] == [("image_several_frames", severity)]
    assert np.abs(read_image(path).astype(int) - np.asarray(first)).max() <= (4 if kind == "MPO" else 0)


DROPPED = [
    pytest.param(b"", "a.jpg", "image_empty", "no bytes", id="case39-zero-bytes"),
    pytest.param(b"<!DOCTYPE html><html>", "a.jpg", "not_an_image", "HTML page", id="case40-html"),
    pytest.param(b"404 not found", "a.jpg", "not_an_image", "text, starting with '404 not found'", id="case40-text"),
    pytest.param(b"\x00\x01\x02\x03" * 9, "a.jpg", "not_an_image", "00 01 02 03", id="case40-binary"),
    pytest.param(b"\xff\xd8\xff\xe0\x00\x10JF", "a.jpg", "image_corrupt", "ends before", id="case41-cut-in-header"),
    pytest.param(b"GIF89a" + b"\0" * 30, "a.png", "image_unsupported", "GIF", id="case46-gif"),
    pytest.param(b"%PDF-1.7", "a.png", "image_unsupported", "PDF", id="case46-pdf"),
    pytest.param(b"<svg xmlns=''>", "a.png", "image_unsupported", "SVG", id="case46-svg"),
    pytest.param(b"\0\0\0\x18ftypheic", "a.heic", "image_unsupported", "HEIC", id="heic"),
    pytest.param(png_header(50_000, 50_000), "a.png", "image_too_large", "50000 x 50000", id="case49-bomb"),
    pytest.param(png_header(13_000, 13_000, 16), "a.png", "image_too_large", "MiB", id="case49-bytes"),
    pytest.param(png_header(9, 100), "a.png", "image_too_small", "at least 10", id="case44-small"),
    pytest.param(png_header(0, 100), "a.png", "image_corrupt", "damaged", id="no-size"),
]


@pytest.mark.parametrize(("data", "name", "code", "words"), DROPPED)
def test_unusable_image_is_dropped_and_explained(data, name, code, words, yolo):
    yolo.write({"ok.jpg": GOOD}).image(f"train/{name}", data)

    records = yolo.scan()

    assert [record.image.name for record in records.records] == ["ok.jpg"]
    (problem,) = records.report.problems
    assert (problem.file, problem.code, problem.action) == (f"images/train/{name}", code, "image dropped")
    assert words in problem.message
    assert records.report.corrupt == 1
    with pytest.raises(DataError, match=rf"{name}: "):
        read_image(yolo.root / "images/train" / name)


@pytest.mark.parametrize("name", ["a.gif", "a.pdf", "a.svg"])
def test_case46_files_of_other_types_in_the_folder_are_named(name, yolo):
    yolo.write({"ok.jpg": GOOD}).image(f"train/{name}", b"x")

    records = yolo.scan()

    assert [(p.file, p.code) for p in records.report.problems] == [(f"images/train/{name}", "image_unsupported")]
    assert (records.report.images, records.report.corrupt) == (1, 1)


def test_case38_listed_but_missing_images_are_dropped_and_all_missing_is_an_error(yolo):
    yolo.write({"a.jpg": GOOD})
    (yolo.root / "list.txt").write_text("images/train/a.jpg\nimages/train/gone.jpg\n" + "x" * 300 + ".jpg\n")
    yolo.yaml.write_text("train: list.txt\nval: images/val\nnames: [cat, dog]")

    records = yolo.scan()
    assert [(p.file[:20], p.code) for p in records.report.problems] == [
        ("images/train/gone.jp", "image_missing"),
        ("x" * 20, "image_unreadable"),
    ]
    (yolo.root / "list.txt").write_text("images/train/gone.jpg\n")
    with pytest.raises(DataError, match="none of the 1 images of the train split can be used"):
        read_split(open_dataset(yolo.yaml), "train", DataConfig())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_case41_jpeg_cut_off_is_dropped_or_filled_with_grey(options, part, put, encode, make_picture):
    whole = encode(make_picture(100, 150), quality=90, **options)
    path = put(whole[: int(len(whole) * part)], "a.jpg")

    assert inspect(path) == (None, [("image_truncated", "warning")])
    with pytest.raises(DataError, match="cut off before its last pixels"):
        read_image(path)
    filled = read_image(path, ImagePolicy(truncated="allow"))
    assert filled.shape == (100, 150, 3)
    assert inspect(path, truncated="allow")[0] is not None
    if not options.get("progressive"):  # a progressive file loses detail everywhere instead
        assert np.abs(filled[:8].astype(int) - read_image(put(whole, "b.jpg"))[:8]).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_case41_other_types_cut_off_are_dropped(kind, put, encode, make_picture):
    whole = encode(make_picture(100, 150), kind, **LOSSLESS[kind])

    header, found = inspect(put(whole[: len(whole) // 2], f"a.{SUFFIX[kind]}"))

    assert header is None
    assert found == [("image_corrupt", "warning")]


def test_case42_jpeg_without_end_marker_is_read_and_never_rewritten(put, encode, make_picture):
    whole = encode(make_picture(100, 150))
    path = put(whole[:-2], "a.jpg")

    assert inspect(path)[1] == [("image_no_end_marker", "note")]
    np.testing.assert_array_equal(read_image(path), read_image(put(whole, "b.jpg")))
    assert path.read_bytes() == whole[:-2]


def test_case43_bytes_behind_the_end_are_accepted(put, encode, make_picture):
    whole = encode(make_picture())
    path = put(whole + b"trailer", "a.jpg")

    assert inspect(path)[1] == [("image_trailing_bytes", "note")]
    np.testing.assert_array_equal(read_image(path), read_image(put(whole, "b.jpg")))
    assert path.read_bytes() == whole + b"trailer"


def test_end_marker_of_a_thumbnail_does_not_hide_a_cut(put, encode, make_picture):
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0" + encode(make_picture(16, 16))  # ends in an end marker of its own
    whole = encode(make_picture(30, 30), exif=exif)

    assert inspect(put(whole[:-20], "a.jpg"))[1] == [("image_truncated", "warning")]


def test_case45_content_decides_not_the_suffix(put, encode, make_picture):
    path = put(encode(make_picture(), "PNG"), "a.jpg")

    np.testing.assert_array_equal(read_image(path), make_picture())
    assert inspect(path)[1] == [("suffix_mismatch", "note")]


def test_damage_between_header_and_end_is_found_by_full_verification(put, encode, make_picture):
    data = bytearray(encode(make_picture(100, 150), "PNG"))
    data[len(data) // 2 : len(data) // 2 + 40] = b"\0" * 40
    path = put(bytes(data))

    assert inspect(path)[1] == []
    assert inspect(path, verify="decode")[1] == [("image_corrupt", "warning")]


def test_limits_are_checked_before_decoding(put, monkeypatch):
    def never(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    with pytest.raises(DataError, match=r"50000 x 50000 px need 7,153 MiB; the limits are 178,956,970 px and 512 MiB"):
        read_image(put(png_header(50_000, 50_000)))
    with pytest.raises(DataError, match="the limits are 100 px"):
        read_image(put(png_header(20, 20)), ImagePolicy(max_pixels=100))


@pytest.mark.parametrize(
    ("wanted", "shape"), [(700, (1000, 1400)), (701, (1000, 1400)), (350, (250, 350)), (40, (125, 175))]
)
def test_reduced_decoding_keeps_the_long_side_and_the_picture(wanted, shape, put, encode, make_picture):
    path = put(encode(make_picture(1000, 1400), quality=95), "a.jpg")
    shape = (500, 700) if wanted == 700 else shape

    reduced = read_image(path, min_long_side=wanted)

    assert reduced.shape[:2] == shape
    averaged = cv2.resize(read_image(path), shape[::-1], interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(reduced, averaged) > 40  # 40 dB: differences of rounding size


def test_reduced_decoding_respects_orientation(put, encode, make_picture):
    exif = Image.Exif()
    exif[274] = 6
    path = put(encode(make_picture(200, 400), exif=exif), "a.jpg")

    assert read_image(path, min_long_side=200).shape == (200, 100, 3)


def test_missing_file_is_named(tmp_path):
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"gone.jpg: cannot be read: No such file"):
            read(tmp_path / "gone.jpg")
