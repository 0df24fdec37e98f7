"""The pipelines' options have the documented defaults, and each invalid value is refused with its reason."""

import dataclasses
import re

import numpy as np
import pytest

from keras_bot.data.config import (
    EvalConfig,
    StreamConfig,
    TrainConfig,
    TrainingStreamConfig,
    accept_keywords,
    check_names,
    check_whole,
    field_names,
)
from keras_bot.data.sharding import eval_rows, training_rows
from keras_bot.errors import MisuseError

STREAM = {"batch_size": 8}
TRAINING = {**STREAM, "epochs": 3}
TRAIN = {**TRAINING, "image_size": 16}
EVAL = {**STREAM, "image_size": 16}


def values(config):
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def test_the_defaults():
    stream = {**STREAM, "corrupt": None, "dtype": "float32", "ram_budget": 1024, "worker": 0, "workers": 1}
    training = {
        **stream,
        **{"epochs": 3, "seed": 0, "first_epoch": 0, "first_step": 0, "flip": True},
        **{"color_jitter": 0.4, "pca_noise": 0.1, "shuffle_buffer": 8192, "draws_of": 0},
    }
    train = {"image_size": 16, "transform": "imagenet", "min_area": 0.08, "crop_padding": 4, "batch_transform": None}
    train |= {"cache": False, "augment_on": "host"}
    evaluation = {"image_size": 16, "transform": "imagenet", "eval_crop": 0.875, "cache": False}
    evaluation |= {"scaled_decoding": False, "pad": True}
    assert values(StreamConfig(**STREAM)) == stream
    assert values(TrainingStreamConfig(**TRAINING)) == training
    assert values(TrainConfig(**TRAIN)) == {**training, **train}
    assert values(EvalConfig(**EVAL)) == {**stream, **evaluation}


COLOR = "color_jitter must be from 0 to 1, and pca_noise finite and at least 0, received "


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (StreamConfig, {"batch_size": 0}, "batch_size must be at least 1, received 0."),
        (StreamConfig, {"batch_size": 2.0}, "batch_size must be a whole number, received 2.0."),
        (StreamConfig, {**STREAM, "ram_budget": 0}, "ram_budget must be at least 1, received 0."),
        (
            StreamConfig,
            {**STREAM, "dtype": "float64"},
            "Unknown dtype 'float64'. Did you mean float16 or bfloat16 or float32?",
        ),
        (TrainingStreamConfig, {**TRAINING, "shuffle_buffer": 0}, "shuffle_buffer must be at least 1, received 0."),
        (TrainingStreamConfig, {**TRAINING, "first_epoch": 4}, "first_epoch must be from 0 to epochs=3, received 4."),
        (TrainingStreamConfig, {**TRAINING, "first_epoch": -1}, "first_epoch must be from 0 to epochs=3, received -1."),
        (TrainingStreamConfig, {**TRAINING, "color_jitter": 1.1}, COLOR + "1.1 and 0.1. 0 is off."),
        (TrainingStreamConfig, {**TRAINING, "color_jitter": -0.1}, COLOR + "-0.1 and 0.1. 0 is off."),
        (TrainingStreamConfig, {**TRAINING, "pca_noise": -0.1}, COLOR + "0.4 and -0.1. 0 is off."),
        (TrainingStreamConfig, {**TRAINING, "pca_noise": float("inf")}, COLOR + "0.4 and inf. 0 is off."),
        (
            TrainingStreamConfig,
            {**TRAINING, "draws_of": -1},
            "draws_of must be a whole number of at least 0, received -1.",
        ),
        (
            TrainingStreamConfig,
            {**TRAINING, "draws_of": 0.5},
            "draws_of must be a whole number of at least 0, received 0.5",
        ),
        (TrainConfig, {**TRAIN, "image_size": 0}, "image_size must be at least 1, received 0."),
        (TrainConfig, {**TRAIN, "transform": "cifr"}, "Unknown transform 'cifr'. Did you mean cifar?"),
        (TrainConfig, {**TRAIN, "augment_on": "hosts"}, "Unknown place to augment on 'hosts'. Did you mean host?"),
        (TrainConfig, {**TRAIN, "min_area": 0}, "min_area must be above 0 and at most 1, and crop_padding at least 0"),
        (
            TrainConfig,
            {**TRAIN, "min_area": 1.1},
            "min_area must be above 0 and at most 1, and crop_padding at least 0",
        ),
        (
            TrainConfig,
            {**TRAIN, "crop_padding": -1},
            "min_area must be above 0 and at most 1, and crop_padding at least",
        ),
        (EvalConfig, {**EVAL, "image_size": 0}, "image_size must be at least 1, received 0."),
        (EvalConfig, {**EVAL, "transform": "x"}, "Unknown transform 'x'."),
        (EvalConfig, {**EVAL, "eval_crop": 0}, "eval_crop must be above 0 and at most 1, received 0."),
        (EvalConfig, {**EVAL, "eval_crop": 1.1}, "eval_crop must be above 0 and at most 1, received 1.1."),
        (EvalConfig, {**EVAL, "workers": 2, "pad": False}, "pad=False gives 2 workers different numbers of batches."),
    ],
)
def test_an_invalid_value_is_refused(config, options, message):
    with pytest.raises(MisuseError, match=f"^{re.escape(message)}"):
        config(**options)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (StreamConfig, {"batch_size": np.int64(8)}),
        (StreamConfig, {**STREAM, "dtype": "float16", "ram_budget": 1}),
        (StreamConfig, {**STREAM, "dtype": "bfloat16"}),
        (TrainingStreamConfig, {**TRAINING, "first_epoch": 3}),
        (TrainingStreamConfig, {**TRAINING, "color_jitter": 1, "pca_noise": 0, "shuffle_buffer": 1}),
        (TrainingStreamConfig, {**TRAINING, "color_jitter": 0, "pca_noise": 5.0, "draws_of": np.int32(2)}),
        (TrainConfig, {**TRAIN, "min_area": 1, "crop_padding": 0, "augment_on": "device", "image_size": 1}),
        (EvalConfig, {**EVAL, "eval_crop": 1, "pad": False}),
        (EvalConfig, {**EVAL, "workers": 2, "worker": 1}),
    ],
)
def test_the_limits_are_allowed(config, options):
    assert values(config(**options)).items() >= options.items()


@pytest.mark.parametrize(("config", "options"), [(TrainConfig, TRAIN), (EvalConfig, EVAL), (StreamConfig, STREAM)])
def test_workers_that_cannot_divide_the_batch_are_refused(config, options):
    with pytest.raises(MisuseError, match="worker"):
        config(**{**options, "workers": 3})
    with pytest.raises(MisuseError, match="worker"):
        config(**{**options, "workers": 2, "worker": 2})


def test_training_rows_come_with_their_mixup_partners():
    train, evaluation = (
        config(**options, workers=2, worker=1) for config, options in ((TrainConfig, TRAIN), (EvalConfig, EVAL))
    )
    assert train.worker_rows() == training_rows(8, 1, 2) and evaluation.worker_rows() == eval_rows(8, 1, 2)
    assert train.worker_rows() != evaluation.worker_rows()


def test_whole_numbers():
    check_whole(a=1, b=np.uint8(2))
    for value, reason in (
        (0, "at least 1, received 0"),
        (1.5, "a whole number, received 1.5"),
        ("1", "a whole number"),
    ):
        with pytest.raises(MisuseError, match=f"^b must be {reason}"):
            check_whole(a=1, b=value)


def test_unknown_options_are_named_with_suggestions():
    check_names("pipeline", ["seed"], field_names(TrainConfig))
    with pytest.raises(TypeError, match=r"^Unknown option of pipeline 'seeds'\. Did you mean seed\?$"):
        check_names("pipeline", ["seed", "seeds"], field_names(TrainConfig))


@accept_keywords(StreamConfig)
def tiny_pipeline(source, config):
    """Builds nothing."""
    return source, config


def test_a_pipeline_takes_a_config_and_still_takes_keywords():
    config = StreamConfig(**STREAM)
    assert tiny_pipeline("source", config) == ("source", config)
    assert tiny_pipeline("source", config=config) == ("source", config)
    message = r"^Pass the options of tiny_pipeline as StreamConfig\(…\), not as keywords\.$"
    with pytest.warns(DeprecationWarning, match=message) as warned:
        assert tiny_pipeline("source", batch_size=8) == ("source", config)
    assert warned[0].filename == __file__
    assert tiny_pipeline.__name__ == "tiny_pipeline" and tiny_pipeline.__doc__ == "Builds nothing."


def test_a_config_and_keywords_exclude_each_other():
    with pytest.raises(TypeError, match=r"^tiny_pipeline: pass dtype, ram_budget to StreamConfig instead\.$"):
        tiny_pipeline("source", StreamConfig(**STREAM), dtype="float16", ram_budget=2)
    with pytest.raises(TypeError, match="Unknown option of tiny_pipeline 'batch'"):
        tiny_pipeline("source", batch=8)
