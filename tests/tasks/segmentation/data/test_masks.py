"""Masks of every bit depth, as PNG files of Pillow's and of others."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_bot.data.sources.base import run_error
from keras_bot.tasks.segmentation.data.factory import open_segmentation
from keras_bot.tasks.segmentation.data.masks import decode_mask
from keras_bot.tasks.segmentation.data.pipeline import SegmentationEvalConfig, segmentation_eval_pipeline
from keras_bot.tasks.segmentation.labels import UNKNOWN

GREY, PALETTE = 0, 3
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _packed(ids, depth):
    """Scan lines of one pass, without filters."""
    bits = (ids[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    lines = np.packbits(bits.reshape(len(ids), -1).astype(np.uint8), axis=1)
    return np.pad(lines, ((0, 0), (1, 0))).tobytes()


def write_png(ids, depth, colour_type, interlaced=False):
    """A PNG of ids (H, W), byte by byte: Pillow writes no grey of 2 or 4 bits."""
    passes = [ids[y::down, x::across] for y, x, down, across in (_ADAM7 if interlaced else ((0, 0, 1, 1),))]
    header = struct.pack(">IIBBBBB", *ids.shape[::-1], depth, colour_type, 0, 0, interlaced)
    data = b"".join(_packed(part, depth) for part in passes if part.size)
    colours = bytes(i * 89 % 256 for i in range(3 * 2 ** min(depth, 8)))
    palette = _chunk(b"PLTE", colours) if colour_type == PALETTE else b""
    chunks = (_chunk(b"IHDR", header), palette, _chunk(b"IDAT", zlib.compress(data)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "colour_type"),
    [(1, GREY), (2, GREY), (4, GREY), (8, GREY), (16, GREY)] + [(d, PALETTE) for d in (1, 2, 4, 8)],
)
def test_every_bit_depth_gives_the_ids(depth, colour_type, interlaced):
    ids = np.random.default_rng(depth).integers(0, 2 ** min(depth, 8), (11, 13))  # no whole bytes in a line
    encoded = tf.constant(write_png(ids, depth, colour_type, interlaced))
    for decode in (decode_mask, tf.function(decode_mask)):
        np.testing.assert_array_equal(decode(encoded), ids)


def test_sixteen_bits_above_255_are_no_ids():
    ids = np.array([[0, 255, 256, 65535]])
    np.testing.assert_array_equal(decode_mask(tf.constant(write_png(ids, 16, GREY))), [[0, 255, UNKNOWN, UNKNOWN]])


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of one image, 9x5, with the given mask; classes 0 to 3."""

    def make(encoded):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir()
        Image.new("RGB", (9, 5)).save(tmp_path / "images/a.png")
        (tmp_path / "masks/a.png").write_bytes(encoded)
        (tmp_path / "val.txt").write_text("a\n")
        return segmentation_eval_pipeline(
            open_segmentation(tmp_path, "val", num_classes=4), SegmentationEvalConfig(batch_size=1)
        )

    return make


def test_two_bits_of_grey_reach_a_batch(folder):
    ids = np.arange(45).reshape(5, 9) % 4
    _, masks, _ = next(iter(folder(write_png(ids, 2, GREY))))
    np.testing.assert_array_equal(masks[0], ids)


def test_an_unknown_id_of_four_bits_is_reported_unchanged(folder):
    with pytest.raises(tf.errors.OpError) as error:
        next(iter(folder(write_png(np.full((5, 9), 7), 4, GREY))))
    assert "contains the id 7." in str(run_error(error.value))


def test_a_rotated_mask_is_explained(folder):
    batches = folder(write_png(np.zeros((9, 5), int), 8, GREY))
    with pytest.raises(tf.errors.OpError) as error:
        next(iter(batches))
    message = str(run_error(error.value))
    assert "a.png: the image is 9x5 and the mask 5x9: width and height are swapped. The labelling tool" in message
    assert "mogrify -auto-orient" in message
