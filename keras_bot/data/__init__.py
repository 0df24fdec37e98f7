"""Data: sources of labelled images and the paper's input pipeline (2.1), on tf.data."""

from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.grid import sample_grid
from keras_bot.data.image import TRANSFORMS
from keras_bot.data.pipeline import eval_pipeline, preprocess_eval, stateless_beta, train_pipeline
from keras_bot.data.source import Source
from keras_bot.data.sources import open_source

__all__ = [
    "TRANSFORMS",
    "CorruptLog",
    "Source",
    "eval_pipeline",
    "open_source",
    "preprocess_eval",
    "sample_grid",
    "stateless_beta",
    "train_pipeline",
]
