import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_bot.tricks import (
    NAG,
    CosineDecay,
    DistillationModel,
    SmoothedCrossentropy,
    SoftCrossentropy,
    distillation_loss,
    mixed_precision,
)

CLASSES, SIZE = 3, 6
HARD_LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference(labels, z, r, temperature, hard_weight):
    """Equation 6 of the paper in float64."""
    z, r = np.asarray(z, "float64"), np.asarray(r, "float64")
    hard = -(labels * np.log(softmax(z))).sum(axis=-1)
    soft = -(softmax(r / temperature) * np.log(softmax(z / temperature))).sum(axis=-1) * temperature**2
    return hard + soft if hard_weight is None else hard_weight * hard + (1 - hard_weight) * soft


def build_net(filters, name, penalty=None, dropout=0.0):
    inputs = keras.Input((SIZE, SIZE, 3))
    regularizer = keras.regularizers.L2(penalty) if penalty else None
    x = layers.Conv2D(filters, 3, kernel_regularizer=regularizer, activity_regularizer=regularizer)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    logits = layers.Dense(CLASSES, dtype="float32")(x)
    return keras.Model(inputs, logits, name=name)


def make_data(count=16):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, SIZE, SIZE, 3)).astype("float32")
    return images, np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, count)]


def build_distiller(penalty=None, optimizer=None, metrics=("accuracy",), **options):
    student, teacher = build_net(4, "student", penalty), build_net(8, "teacher", penalty=0.1, dropout=0.5)
    distiller = DistillationModel(student, teacher, **options)
    distiller.compile(optimizer or NAG(0.05), HARD_LOSS, metrics=list(metrics))
    return distiller, student, teacher


def values(model):
    return [w.numpy() for w in model.weights]


@pytest.mark.parametrize("hard_weight", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_loss_follows_the_paper_and_gluoncv(hard_weight, temperature):
    rng = np.random.default_rng(1)
    labels = rng.dirichlet(np.ones(CLASSES), size=5)
    z, r = rng.normal(size=(2, 5, CLASSES)) * 5
    loss = distillation_loss(labels, z, r, temperature, hard_weight)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, reference(labels, z, r, temperature, hard_weight), rtol=1e-4)


def test_the_gradient_at_temperature_20_is_of_the_hard_losses_size():
    rng = np.random.default_rng(2)
    z, r = tf.Variable(rng.normal(size=(4, CLASSES)) * 5), tf.Variable(rng.normal(size=(4, CLASSES)) * 5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(SoftCrossentropy(20.0, reduction=None).call(r, z))
    by_student, by_teacher = tape.gradient(loss, [z, r])
    expected = 20 * (softmax(z.numpy() / 20) - softmax(r.numpy() / 20))
    np.testing.assert_allclose(by_student, expected, rtol=1e-3, atol=1e-5)
    assert 0.1 < np.abs(by_student).max() < 10
    assert by_teacher is None


def test_half_precision_logits_are_computed_in_float32():
    labels = np.eye(CLASSES)[[0, 1]]
    z, r = np.random.default_rng(3).normal(size=(2, 2, CLASSES)).astype("float16") * 10
    np.testing.assert_allclose(distillation_loss(labels, z, r), reference(labels, z, r, 20, None), rtol=1e-5)


@pytest.mark.parametrize("hard_weight", [None, 0.25])
@pytest.mark.parametrize("penalty", [None, 0.01])
def test_fit_minimises_the_loss_with_the_students_penalties_at_full_weight(hard_weight, penalty):
    distiller, student, teacher = build_distiller(
        penalty, keras.optimizers.SGD(0.0), hard_weight=hard_weight, temperature=5.0
    )
    images, labels = make_data()
    z, r = student(images, training=True).numpy(), teacher(images, training=False).numpy()
    penalties = float(sum(tf.reduce_sum(p) for p in student.losses))
    assert (penalties > 0.01) == bool(penalty)
    expected = reference(labels, z, r, 5.0, hard_weight).mean() + penalties
    history = distiller.fit(images, labels, batch_size=16, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("hard_weight", [pytest.param(None, marks=pytest.mark.thorough), 0.25])
def test_logits_that_come_with_the_labels_train_as_their_teacher_does(hard_weight):
    images, labels = make_data()
    weights, logs = [], []
    for precomputed in (False, True):
        keras.utils.set_random_seed(0)
        student, teacher = build_net(4, "student", penalty=0.01), build_net(8, "teacher")
        distiller = DistillationModel(student, None if precomputed else teacher, hard_weight=hard_weight)
        distiller.compile(NAG(0.05), HARD_LOSS, metrics=["accuracy"])
        batch = (images, (labels, teacher(images, training=False)) if precomputed else labels)
        data = tf.data.Dataset.from_tensors(batch).repeat(3)
        logs.append(distiller.fit(data, validation_data=(images, labels), shuffle=False, verbose=0).history)
        weights.append(values(student))
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert logs[0].keys() == logs[1].keys()
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)


def test_sample_weights_weigh_both_parts():
    distiller, _, _ = build_distiller(optimizer=keras.optimizers.SGD(0.0))
    images, labels = make_data()
    plain = distiller.fit(images, labels, batch_size=16, verbose=0).history["loss"][0]
    doubled = distiller.fit(images, labels, sample_weight=np.full(16, 2.0), batch_size=16, verbose=0).history["loss"][0]
    assert doubled == pytest.approx(2 * plain, rel=1e-4)


def test_evaluate_and_predict_are_the_students_alone():
    distiller, student, _ = build_distiller()
    images, labels = make_data()
    before = values(student)
    results = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    logits = student(images, training=False).numpy().astype("float64")
    hard = -(labels * np.log(softmax(logits))).sum(axis=-1).mean()
    assert results["loss"] == pytest.approx(hard, rel=1e-5)
    assert results["accuracy"] == pytest.approx((logits.argmax(-1) == labels.argmax(-1)).mean())
    np.testing.assert_allclose(distiller.predict(images, verbose=0), logits, rtol=1e-4, atol=1e-6)
    for now, then in zip(values(student), before, strict=True):  # the moving statistics too
        np.testing.assert_array_equal(now, then)


def test_the_teacher_is_bit_identical_after_fit_and_the_students_statistics_moved():
    distiller, student, teacher = build_distiller()
    teacher.layers[2].moving_mean.assign(np.arange(8.0))
    distiller = DistillationModel(student, teacher)
    distiller.compile(NAG(0.05), HARD_LOSS)
    before, moving = values(teacher), student.layers[2].moving_mean.numpy()
    distiller.fit(*make_data(), epochs=2, verbose=0)
    for model in (teacher, distiller.teacher):
        for now, then in zip(values(model), before, strict=True):
            np.testing.assert_array_equal(now, then)
    assert np.any(student.layers[2].moving_mean.numpy() != moving)
    assert [v.path for v in distiller.trainable_variables] == [v.path for v in student.trainable_variables]
    assert teacher.trainable


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_half_precision_student_learns_from_a_float32_teacher(policy):
    teacher = build_net(8, "teacher")
    with mixed_precision(policy):
        student = build_net(4, "student")
    distiller = DistillationModel(student, teacher)
    conv, head = distiller.teacher.layers[1], distiller.teacher.layers[-1]
    assert conv.compute_dtype == policy.removeprefix("mixed_")
    assert conv.kernel.dtype == head.compute_dtype == "float32"
    assert teacher.layers[1].compute_dtype == "float32"
    distiller.compile(NAG(0.05), HARD_LOSS)
    is_scaled = isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    losses = distiller.fit(*make_data(), epochs=4, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]


@pytest.mark.thorough
def test_xla_trains_the_same():
    losses = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        distiller = DistillationModel(build_net(4, "student"), build_net(8, "teacher"))
        distiller.compile(NAG(0.05), HARD_LOSS, jit_compile=jit)
        losses.append(distiller.fit(*make_data(), batch_size=8, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.thorough
def test_a_teacher_of_another_input_size_gets_what_it_expects():
    inputs = keras.Input((2 * SIZE, 2 * SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(inputs))
    teacher = keras.Model(inputs, layers.Dense(CLASSES)(pooled))
    distiller = DistillationModel(build_net(4, "student"), teacher, teacher_inputs=layers.UpSampling2D())
    distiller.compile(NAG(0.05), HARD_LOSS)
    distiller.fit(*make_data(), verbose=0)


CHECK = """
import sys, keras, numpy as np
import keras_bot.tricks.nag, keras_bot.tricks.decay
for name in ("DistillationModel", "Distiller"):
    keras.saving.get_custom_objects().pop(f"keras_bot>{name}", None)
model = keras.saving.load_model(sys.argv[1])
data = np.load(sys.argv[2])
assert type(model).__name__ == "Functional", type(model)
np.testing.assert_allclose(model.predict(data["x"], verbose=0), data["z"], rtol=1e-4, atol=1e-6)
loss, _ = model.evaluate(data["x"], data["y"], verbose=0)
np.testing.assert_allclose(loss, data["loss"], rtol=1e-4)
assert int(model.optimizer.iterations) == 2, model.optimizer.iterations
"""


@pytest.mark.thorough
def test_a_checkpoint_is_the_student_with_its_optimizer(tmp_path):
    distiller, student, _ = build_distiller(optimizer=NAG(CosineDecay(0.05, 10), weight_decay=1e-3))
    images, labels = make_data()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")
    distiller.fit(images, labels, batch_size=8, verbose=0, callbacks=[checkpoint])
    config = zipfile.ZipFile(tmp_path / "best.keras").read("config.json").decode()
    assert "Distill" not in config
    assert "teacher" not in config
    loss = distiller.evaluate(images, labels, verbose=0)[0]
    np.savez(tmp_path / "data.npz", x=images, y=labels, z=student.predict(images, verbose=0), loss=loss)
    arguments = [sys.executable, "-c", CHECK, str(tmp_path / "best.keras"), str(tmp_path / "data.npz")]
    finished = subprocess.run(arguments, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_weights_and_export_are_the_students(tmp_path):
    distiller, student, _ = build_distiller()
    images, _ = make_data(2)
    distiller.save_weights(tmp_path / "student.weights.h5")
    other = build_net(4, "other")
    other.load_weights(tmp_path / "student.weights.h5")
    np.testing.assert_array_equal(other(images), student(images))
    student.set_weights([np.zeros_like(w) for w in student.get_weights()])
    distiller.load_weights(tmp_path / "student.weights.h5")
    np.testing.assert_array_equal(other(images), student(images))
    distiller.export(str(tmp_path / "saved"), verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(exported.serve(images), student(images), rtol=1e-4, atol=1e-6)
    assert len(exported.variables) == len(student.variables)


def softmax_nets():
    yield keras.Sequential([keras.Input((SIZE,)), layers.Dense(CLASSES, activation="softmax")])
    yield keras.Sequential([keras.Input((SIZE,)), layers.Dense(CLASSES), layers.Softmax()])
    yield keras.Sequential([keras.Input((SIZE,)), layers.Dense(CLASSES), layers.Activation("softmax")])
    inputs = keras.Input((SIZE,))
    yield keras.Model(inputs, keras.ops.softmax(layers.Dense(CLASSES)(inputs)))
    yield keras.Model(inputs, next(softmax_nets())(inputs))


@pytest.mark.parametrize("index", range(5))
def test_a_model_that_ends_in_softmax_is_refused(index):
    net = list(softmax_nets())[index]
    logits = keras.Sequential([keras.Input((SIZE,)), layers.Dense(CLASSES)])
    with pytest.raises(ValueError, match=r"teacher.*logits.*softmax.*without"):
        DistillationModel(logits, net)
    with pytest.raises(ValueError, match=r"student.*logits.*softmax.*without"):
        DistillationModel(net, logits)


def test_the_loss_function_refuses_bad_arguments():
    for options in ({"temperature": 0.0}, {"hard_weight": -0.1}, {"hard_weight": 1.1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            distillation_loss(np.eye(3), np.eye(3), np.eye(3), **options)


@pytest.mark.parametrize(
    "loss",
    [
        None,
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        keras.losses.categorical_crossentropy,
        keras.losses.CategoricalCrossentropy(),
        keras.losses.KLDivergence(),
        "kl_divergence",
        SmoothedCrossentropy(0.1),
    ],
)
def test_a_hard_loss_that_expects_probabilities_is_refused(loss):
    with pytest.raises(ValueError, match=r"on logits|returns logits"):
        DistillationModel(build_net(4, "student"), build_net(8, "teacher")).compile("sgd", loss)
