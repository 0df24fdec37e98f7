"""What the network of a run says of every image of an evaluation set: the few figures of each that the page needs."""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_bot import data
from keras_bot.data.color import denormalise
from keras_bot.errors import RunError
from keras_bot.recipe import Recipe
from keras_bot.report.calibration import log_probabilities, logit_gap, reliability
from keras_bot.training import assemble
from keras_bot.training.failures import clear_errors
from keras_bot.training.network import load_network

MISTAKES = 24
_FIGURES = ("labels", "predicted", "confidence", "true_probability", "rank", "gap", "loss")


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
        image: uint8 (S, S, 3), as the network saw it, less the normalisation.
        place: in the set's natural order, from 0.
        name: of the record, as the data set calls it.
        true, predicted: the classes.
        confidence, true_probability: of the predicted and of the true class.
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
    """One network on one set of N images and K classes. No logits are kept: a few numbers an image, and some images.

    Attributes:
        source: name of the set.
        class_names: K of them.
        labels, predicted: int32 (N,).
        confidence, true_probability: float32 (N,), of the predicted and of the true class.
        rank: int32 (N,), how many classes have a larger logit than the true one.
        gap: float32 (N,), see `calibration.logit_gap`.
        loss: float32 (N,), -log of the true class's probability.
        mistakes: the wrong answers of the greatest confidence, it first.
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
        """Whether each answer is right, bool (N,)."""
        return self.labels == self.predicted

    def figures(self) -> dict[str, float]:
        """top1, top5, mean_confidence, ece (fractions), nll and mean_gap (in nats) over the set."""
        return {
            "top1": float(self.correct.mean()),
            "top5": float((self.rank < 5).mean()),
            "mean_confidence": float(self.confidence.mean(dtype=np.float64)),
            "ece": reliability(self.confidence, self.correct).ece(),
            "nll": float(self.loss.mean(dtype=np.float64)),
            "mean_gap": float(self.gap.mean(dtype=np.float64)),
        }


def predict(recipe: Recipe, path: pathlib.Path, class_names: tuple[str, ...], shown: int = MISTAKES) -> Predictions:
    """Looks at every image of the recipe's evaluation set once, as `evaluate` does.

    Args:
        recipe: says which set, and how its images are prepared.
        path: the .keras file of a classifier.
        class_names: that it was trained for, in their order.
        shown: how many mistakes are kept with their image.

    Raises:
        MisuseError: if the file or the set can't be used, or the classes are others.
        RunError: if too many images can't be decoded, or the network gives what is not finite.
    """
    source = assemble.open_source(recipe, "eval", class_names=class_names)
    network = load_network(path, num_classes=source.num_classes)
    corrupt = data.CorruptLog(recipe.max_corrupt)
    parts, mistakes, place = [], [], 0
    with clear_errors(corrupt):
        for images, targets, weights in assemble.evaluation_data(recipe, source, corrupt).as_numpy_iterator():
            logits = keras.ops.convert_to_numpy(network.predict_on_batch(images))
            if not np.isfinite(logits).all():
                raise RunError(f"The network of {path} gives logits that are not finite.")
            whole = weights > 0
            part = _look(logits[whole], targets[whole].argmax(axis=-1))
            parts.append(part)
            mistakes = _worst(mistakes, part, images[whole], place + np.flatnonzero(whole), shown)
            place += len(weights)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in _FIGURES}
    named = [dataclasses.replace(mistake, name=_name(source, mistake.place)) for mistake in mistakes]
    return Predictions(source.name, source.class_names, **joined, mistakes=tuple(named), unreadable=(*corrupt.names,))


def _look(logits, labels):
    """The figures of a batch's images, from its logits (b, K) and labels (b,)."""
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
    """The most confident mistakes so far and of this batch, at most `count`; only theirs are the images kept."""
    confidence = part["confidence"]
    wrong = np.flatnonzero(part["labels"] != part["predicted"])
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    told = (
        [float(part[name][i]) for name in ("labels", "predicted", "confidence", "true_probability")] for i in chosen
    )
    new = [
        Mistake(denormalise(images[i]), int(places[i]), "", int(true), int(predicted), sure, doubt)
        for i, (true, predicted, sure, doubt) in zip(chosen, told, strict=True)
    ]
    return sorted([*mistakes, *new], key=lambda mistake: (-mistake.confidence, mistake.place))[:count]


def _name(source, place):
    """What the data set calls the record at a place of its natural order."""
    key = next(iter(source.keys(None, 1, place).take(1)))
    return source.record_name(*key).numpy().decode(errors="replace")
