"""What a run is for: everything in which classification, detection and segmentation differ, in the trainer's eyes."""

import dataclasses
from collections.abc import Callable


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
        save: (model, path) -> saves the network, images to results, for anyone, in float32.
        callbacks: (recipe, source) -> what evaluates at the ends of epochs besides Keras; before the recorder.
        report: (recipe, trainee, source, folder) -> tables and pictures of the results, into the run directory.
    """

    name: str
    metrics: tuple[str, ...]
    open_source: Callable
    build: Callable
    training_data: Callable
    evaluation_data: Callable
    save: Callable
    callbacks: Callable = lambda recipe, source: []
    report: Callable = lambda recipe, trainee, source, folder: None
