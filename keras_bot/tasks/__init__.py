"""Tasks of the trainer: classification, detection and segmentation on one interface."""

from keras_bot.tasks.base import Task


def find_task(name: str) -> Task:
    """Returns the task "classification", "detection" or "segmentation" without importing the other tasks."""
    if name == "detection":
        from keras_bot.tasks.detection.task import Detection

        return Detection()
    if name == "segmentation":
        from keras_bot.tasks.segmentation.task import Segmentation

        return Segmentation()
    from keras_bot.tasks.classification import Classification

    return Classification()
