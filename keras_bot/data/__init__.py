"""Sources of labelled images and the paper's input pipeline (2.1), built on tf.data."""

from keras_bot.data import ops
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.evaluation import eval_pipeline, preprocess_eval
from keras_bot.data.grid import sample_grid
from keras_bot.data.image import TRANSFORMS
from keras_bot.data.library import pipeline
from keras_bot.data.source import Source
from keras_bot.data.sources import open_source
from keras_bot.data.training import finish_batch, train_pipeline

__all__ = [
    "TRANSFORMS",
    "CorruptLog",
    "Source",
    "eval_pipeline",
    "finish_batch",
    "open_source",
    "ops",
    "pipeline",
    "preprocess_eval",
    "sample_grid",
    "train_pipeline",
]
