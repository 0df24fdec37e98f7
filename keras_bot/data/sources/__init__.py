"""Data sets as `Source`s: TFDS, image folders, TFRecord shards, .npz files, the embedded digits, noise."""

from keras_bot.data.sources.factory import open_source

__all__ = ["open_source"]
