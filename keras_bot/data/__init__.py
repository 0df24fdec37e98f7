"""Sources of labelled images and the paper's input pipeline (2.1), built on tf.data."""

from keras_bot.data import ops  # noqa: F401  # an attribute in version 0.1.0
from keras_bot.data.augment.geometry import TRANSFORMS
from keras_bot.data.config import EvalConfig, TrainConfig
from keras_bot.data.corrupt import CorruptLog
from keras_bot.data.pipeline import eval_pipeline, finish_batch, pipeline, preprocess_eval, train_pipeline
from keras_bot.data.preview import sample_grid
from keras_bot.data.sources.base import Source
from keras_bot.data.sources.factory import SourceOptions, open_source

__all__ = [
    "TRANSFORMS",
    "CorruptLog",
    "EvalConfig",
    "Source",
    "SourceOptions",
    "TrainConfig",
    "eval_pipeline",
    "finish_batch",
    "open_source",
    "pipeline",
    "preprocess_eval",
    "sample_grid",
    "train_pipeline",
]
