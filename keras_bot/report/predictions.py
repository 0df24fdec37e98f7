"""Predictions of a run's network on an evaluation set, reduced to the few numbers per image that the page needs."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_bot import data
from keras_bot.data.augment.color import denormalise
from keras_bot.errors import RunError
from keras_bot.model_files import load_network
from keras_bot.recipe import Recipe
from keras_bot.report.reliability import log_probabilities, logit_gap, reliability
from keras_bot.tasks.classification import Classification
from keras_bot.training.failures import user_errors

MISTAKES = 24
_COLUMNS = ("labels", "predicted", "confidence", "true_probability", "rank", "gap", "loss")


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A misclassified image.

    Attributes:
        image: uint8 (S, S, 3), the network's input without normalisation.
        place: index in the data set's natural order, from 0.
        name: the record's name in the data set.
        true, predicted: class indices.
        confidence, true_probability: probabilities of the predicted and of the true class.
    """

    image: np.ndarray
    place: int
    name: str
    true: int
    predicted: int
    confidence: float
    true_probability: float


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of one network for N images and K classes: a few numbers per image and some images, no logits.

    Attributes:
        source: name of the data set.
        class_names: the K class names.
        labels, predicted: int32 (N,).
        confidence, true_probability: float32 (N,), probabilities of the predicted and of the true class.
        rank: int32 (N,), number of classes with a larger logit than the true class.
        gap: float32 (N,), see `reliability.logit_gap`.
        loss: float32 (N,), -log of the true class's probability.
        mistakes: the most confident wrong answers, in descending order of confidence.
        unreadable: names of images that could not be decoded.
    """

    source: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    true_probability: np.ndarray
    rank: np.ndarray
    gap: np.ndarray
    loss: np.ndarray
    mistakes: tuple[Mistake, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, bool (N,)."""
        return self.labels == self.predicted

    def metrics(self) -> dict[str, float]:
        """Computes top1, top5, mean_confidence, ece (fractions), nll and mean_gap (in nats) over the set."""
        return {
            "top1": float(self.correct.mean()),
            "top5": float((self.rank < 5).mean()),
            "mean_confidence": float(self.confidence.mean(dtype=np.float64)),
            "ece": reliability(self.confidence, self.correct).ece(),
            "nll": float(self.loss.mean(dtype=np.float64)),
            "mean_gap": float(self.gap.mean(dtype=np.float64)),
        }


def predict(
    recipe: Recipe, path: pathlib.Path, class_names: tuple[str, ...], max_mistakes: int = MISTAKES
) -> Predictions:
    """Predicts each image of the recipe's evaluation set once, as `evaluate` does.

    Args:
        recipe: sets the data set and its preprocessing.
        path: the .keras file of a classifier.
        class_names: the classes it was trained on, in order.
        max_mistakes: number of mistakes to keep with their image.

    Raises:
        MisuseError: if the file or the data set can't be used, or the classes differ.
        RunError: if too many images can't be decoded, or the network returns non-finite logits.
    """
    task = Classification()
    source = task.open_source(recipe, "eval", class_names=class_names)
    network = load_network(path, num_classes=source.num_classes)
    corrupt = data.CorruptLog(recipe.max_corrupt)
    parts: list[dict[str, np.ndarray]] = []
    mistakes: list[Mistake] = []
    place = 0
    with user_errors(corrupt):
        for images, targets, weights in task.evaluation_data(recipe, source, corrupt).as_numpy_iterator():
            logits = keras.ops.convert_to_numpy(network.predict_on_batch(images))
            if not np.isfinite(logits).all():
                raise RunError(f"The network in {path} returns logits that are not finite.")
            real = weights > 0  # 0: padding, or an image that could not be decoded
            part = _measure(logits[real], targets[real].argmax(axis=-1))
            parts.append(part)
            mistakes = _worst(mistakes, part, images[real], place + np.flatnonzero(real), max_mistakes)
            place += len(weights)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}
    named = tuple(dataclasses.replace(mistake, name=_name(source, mistake.place)) for mistake in mistakes)
    return Predictions(source.name, source.class_names, **columns, mistakes=named, unreadable=(*corrupt.names,))


def _measure(logits, labels):
    """Computes the per-image values of a batch from its logits (b, K) and labels (b,)."""
    rows, predicted, logs = np.arange(len(logits)), logits.argmax(axis=-1), log_probabilities(logits)
    return {
        "labels": labels.astype(np.int32),
        "predicted": predicted.astype(np.int32),
        "confidence": np.exp(logs[rows, predicted]).astype(np.float32),
        "true_probability": np.exp(logs[rows, labels]).astype(np.float32),
        "rank": (logits > logits[rows, labels][:, None]).sum(axis=-1).astype(np.int32),
        "gap": logit_gap(logits).astype(np.float32),
        "loss": -logs[rows, labels].astype(np.float32),
    }


def _worst(mistakes, part, images, places, count):
    """Merges a batch into the `count` most confident mistakes so far; only their images are kept."""
    confidence = part["confidence"]
    wrong = np.flatnonzero(part["labels"] != part["predicted"])
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    new = [
        Mistake(
            denormalise(images[i]),
            int(places[i]),
            "",
            int(part["labels"][i]),
            int(part["predicted"][i]),
            float(confidence[i]),
            float(part["true_probability"][i]),
        )
        for i in chosen
    ]
    return sorted([*mistakes, *new], key=lambda mistake: (-mistake.confidence, mistake.place))[:count]


def _name(source, place):
    """Returns the name of the record at `place` in the data set's natural order."""
    key = next(iter(source.keys(None, 1, place).take(1)))
    return source.record_name(*key).numpy().decode(errors="replace")
