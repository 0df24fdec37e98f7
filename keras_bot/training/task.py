"""What a run is for: everything in which classification, detection and segmentation differ, in the trainer's eyes."""

import dataclasses
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class Task:
    """The parts of a training. `strategy` is a `Strategy`, `source` what `open_source` gave, `corrupt` a CorruptLog.

    Attributes:
        name: as in "classification".
        metrics: the evaluation's, between 0 and 1, more is better, in the logs of an epoch's end with "val_" before.
            By the first the best network is chosen.
        open_source: (recipe, split, strategy) -> records, with name, size, num_classes, class_names, fingerprint().
        build: (recipe, source, strategy) -> the model whose variables are the state, and the compiled one to fit.
        training_data: (recipe, source, corrupt, first_epoch=, first_step=, strategy=) -> tf.data batches.
        evaluation_data: (recipe, source, corrupt, strategy) -> the same, of every image once, with weights.
        network: the model -> the one that is saved, images to results.
        callbacks: (recipe, source, corrupt) -> what evaluates at the ends of epochs besides Keras; before the recorder.
    """

    name: str
    metrics: tuple[str, ...]
    open_source: Callable
    build: Callable
    training_data: Callable
    evaluation_data: Callable
    network: Callable[[keras.Model], keras.Model] = lambda model: model
    callbacks: Callable = lambda recipe, source, corrupt: []
