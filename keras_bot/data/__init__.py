"""Sources of labelled images and the paper's input pipeline (2.1), built on tf.data."""

from keras_bot.data.augment import tf_ops as ops
from keras_bot.data.augment.geometry import TRANSFORMS
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.eval_pipeline import eval_pipeline, preprocess_eval
from keras_bot.data.pipeline import pipeline
from keras_bot.data.preview import sample_grid
from keras_bot.data.sources.base import Source
from keras_bot.data.sources.lookup import open_source
from keras_bot.data.train_pipeline import finish_batch, train_pipeline

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
