"""Conversion of image folders to TFRecord shards."""

from keras_bot.data.convert.conversion import convert

__all__ = ["convert"]
