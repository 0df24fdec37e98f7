"""Lookup of tasks by name."""

from keras_bot.training.task import Task


def find_task(name: str) -> Task:
    """Returns the task "classification", "detection" or "segmentation" without importing the other tasks."""
    if name == "detection":
        from keras_bot.transfer.detection import DETECTION as task
    elif name == "segmentation":
        from keras_bot.transfer.segmentation import SEGMENTATION as task
    else:
        from keras_bot.training.classification import CLASSIFICATION as task
    return task
