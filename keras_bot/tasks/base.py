"""Interface between the trainer and a task: everything that differs between classification, detection, segmentation."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Task:
    """Components of a task. `strategy` is a `Strategy`, `source` comes from `open_source`, `corrupt` is a CorruptLog.

    Attributes:
        name: for example "classification".
        metrics: names of the evaluation metrics, between 0 and 1, higher is better. The logs at the end of an epoch
            contain them with the prefix "val_". The first one selects the best network.
        open_source: (recipe, split, strategy, class_names) -> records, with name, size, num_classes, class_names,
            fingerprint(). If `class_names` is given, labels are indices into it, and other classes are an error.
        build: (recipe, source, strategy) -> the model whose variables are the state, and the compiled model to fit.
        training_data: (recipe, source, corrupt, first_epoch=, first_step=, strategy=) -> tf.data batches.
        evaluation_data: (recipe, source, corrupt, strategy) -> tf.data batches with weights, every image once.
        save: (model, path) -> saves the portable float32 network, from images to results.
        evaluate: (recipe, path of a .keras file, source, corrupt) -> figures of that network, including `metrics`.
        evaluator: (recipe, source, corrupt) -> None, or a callback, called before the recorder, that evaluates or keeps
            the figures; its `report(trainee, folder)` writes tables and pictures to the run directory.
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
