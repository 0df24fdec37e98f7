"""Lookup of tasks by name."""

from keras_bot.tasks.base import Task


def find_task(name: str) -> Task:
    """Returns the task "classification", "detection" or "segmentation" without importing the other tasks."""
    if name == "detection":
        from keras_bot.tasks.detection.task import DETECTION as task
    elif name == "segmentation":
        from keras_bot.tasks.segmentation.task import SEGMENTATION as task
    else:
        from keras_bot.tasks.classification import CLASSIFICATION as task
    return task
