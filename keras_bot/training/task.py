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
        open_source: (recipe, split, strategy, class_names) -> records, with name, size, num_classes, class_names,
            fingerprint(); labels count by `class_names` where they are given, and others are refused.
        build: (recipe, source, strategy) -> the model whose variables are the state, and the compiled one to fit.
        training_data: (recipe, source, corrupt, first_epoch=, first_step=, strategy=) -> tf.data batches.
        evaluation_data: (recipe, source, corrupt, strategy) -> the same, of every image once, with weights.
        save: (model, path) -> saves the network, images to results, for anyone, in float32.
        evaluate: (recipe, path of a .keras file, source, corrupt) -> the figures of that network, `metrics` among them.
        evaluator: (recipe, source, corrupt) -> None, or a callback, called before the recorder, that evaluates or keeps
            what was, with `report(trainee, folder)` for tables and pictures in the run directory.
    """

    name: str
    metrics: tuple[str, ...]
    open_source: Callable
    build: Callable
    training_data: Callable
    evaluation_data: Callable
    save: Callable
    evaluate: Callable
    evaluator: Callable = lambda recipe, source, corrupt: None
