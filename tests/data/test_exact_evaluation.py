"""`model.evaluate` on `data.pipeline(…, "eval")` gives the exact mean of any loss, as one batch of all images does."""

import functools

import keras
import numpy as np
import pytest
from builders import noise, write_npz

from keras_bot import data
from keras_bot.errors import MisuseError
from keras_bot.tricks import DistillationModel, SmoothedCrossentropy

LOSSES = {
    "smoothed": lambda: SmoothedCrossentropy(0.1, from_logits=True),
    "crossentropy": lambda: keras.losses.CategoricalCrossentropy(from_logits=True),
    "by name": lambda: "mse",
    "focal": lambda: keras.losses.CategoricalFocalCrossentropy(from_logits=True),
    "mean by weights": lambda: keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
}
SIZE = 12


@pytest.fixture(scope="module")
def set_of_12(tmp_path_factory):
    images, labels = [noise(SIZE, 8, 8, 3, seed=seed) for seed in (0, 1)], np.arange(SIZE) % 4
    path = tmp_path_factory.mktemp("set") / "set.npz"
    return str(write_npz(path, x_train=images[0], x_test=images[1], y_train=labels, y_test=labels))


@pytest.fixture(scope="module")
def batches_of(set_of_12):
    """Returns the evaluation batches of a size, which are built once."""
    return functools.cache(lambda batch_size: held_out(set_of_12, batch_size))


def build_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])


def held_out(source, batch_size, **options):
    return data.pipeline(source, "eval", batch_size=batch_size, image_size=8, transform="plain", **options)


def exact(net, loss, batches):
    """The loss and accuracy over all images in one batch, in NumPy's mean of the single losses."""
    images, labels = (np.concatenate([np.asarray(batch[i]) for batch in batches]) for i in (0, 1))
    logits = np.asarray(net(images))
    loss = keras.losses.get(loss()) if isinstance(loss(), str) else loss()
    single = [float(keras.ops.mean(loss(labels[i : i + 1], logits[i : i + 1]))) for i in range(len(images))]
    return len(images), np.mean(single), np.mean(logits.argmax(-1) == labels.argmax(-1))


@pytest.mark.parametrize(
    ("batch_size", "loss"),
    [(5, loss) for loss in LOSSES]
    + [pytest.param(64, loss, marks=pytest.mark.thorough) for loss in LOSSES if loss != "smoothed"]
    + [(64, "smoothed"), pytest.param(4, "smoothed", marks=pytest.mark.thorough), (1, "smoothed")],
)
def test_evaluate_gives_the_exact_loss_and_metrics(batches_of, batch_size, loss):
    net, batches, loss = build_net(), batches_of(batch_size), LOSSES[loss]
    count, expected, accuracy = exact(net, loss, list(batches))
    assert count == SIZE and len(batches) == -(-SIZE // batch_size)
    net.compile(loss=loss(), metrics=["accuracy"], weighted_metrics=[keras.metrics.CategoricalAccuracy(name="top1")])
    found = net.evaluate(batches, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == found["top1"] == pytest.approx(accuracy)


def test_so_does_the_validation_of_fit_and_a_distiller(batches_of):
    net, batches = build_net(), batches_of(64)
    loss = LOSSES["smoothed"]
    distiller = DistillationModel(net, build_net())
    distiller.compile(keras.optimizers.SGD(0.0), loss())
    history = distiller.fit(batches, validation_data=batches, verbose=0).history
    assert history["val_loss"][0] == pytest.approx(exact(net, loss, list(batches))[1], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, pytest.param(2, marks=pytest.mark.thorough), 4])
def test_images_that_cannot_be_decoded_do_not_count(image_folder, batch_size):
    folder = image_folder(classes=4, val=3)
    for name in ("class0/0", "class0/1", "class3/2"):
        (folder / "val" / f"{name}.jpg").write_bytes(b"no image")
    batches = held_out(str(folder), batch_size, corrupt=data.CorruptLog(3))
    net, loss = build_net(), LOSSES["crossentropy"]
    count, expected, accuracy = exact(net, loss, list(batches))
    assert count == 9
    net.compile(loss=loss(), metrics=["accuracy"])
    found = net.evaluate(batches, verbose=0, return_dict=True)
    assert found == {"loss": pytest.approx(expected, rel=1e-5), "accuracy": pytest.approx(accuracy)}


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param("smoothed", marks=pytest.mark.thorough),
        "crossentropy",
        "by name",
        pytest.param("focal", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize(
    "batch_size", [pytest.param(64, marks=pytest.mark.thorough), 10, pytest.param(4, marks=pytest.mark.thorough)]
)
def test_on_replicas_every_batch_is_padded_and_the_loss_exact(set_of_12, batches_of, loss, batch_size, two_replicas):
    with two_replicas.scope():
        net, batches = build_net(), held_out(set_of_12, batch_size)
        net.compile(loss=LOSSES[loss](), weighted_metrics=["accuracy"])
    assert {len(images) for images, _, _ in batches} == {batch_size}
    found = net.evaluate(batches, verbose=0, return_dict=True)
    count, expected, accuracy = exact(build_net(), LOSSES[loss], list(batches_of(64)))
    assert count == SIZE
    assert found == {"loss": pytest.approx(expected, rel=1e-5), "accuracy": pytest.approx(accuracy, rel=1e-5)}


def test_workers_need_padding(set_of_12):
    assert len(list(held_out(set_of_12, 8, worker=1, workers=2))) == 2
    with pytest.raises(MisuseError, match="Use pad=True"):
        held_out(set_of_12, 8, worker=1, workers=2, pad=False)
