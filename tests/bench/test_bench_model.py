"""`bench model`: networks and their peers are timed in processes of their own."""

import json

import pytest

from keras_bot.bench.contestant import StepSettings
from keras_bot.bench.model import bench_model, table
from keras_bot.cli.main import main
from keras_bot.errors import MisuseError, RunError

TINY = {"name": "cifar_resnet20_d", "peers": ("cifar_resnet20_a",), "repeats": 2}
TINY_STEP = {"batch_size": 2, "image_size": 16}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("step", "folded"),
    [
        ({"mode": "train"}, False),
        ({"mode": "forward", "dtype": "mixed_bfloat16"}, True),
    ],
)
def test_the_report_is_consistent(step, folded):
    report = bench_model(**TINY, settings=StepSettings(**TINY_STEP, **step), folded=folded)
    names = [(row["name"], row["folded"]) for row in report["rows"]]
    ours = [("cifar_resnet20_d", False)] + [("cifar_resnet20_d", True)] * folded
    assert names == [*ours, ("cifar_resnet20_a", False)]
    for row in report["rows"]:
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
        assert row["ratio"] == pytest.approx(report["rows"][0]["images_per_second"] / row["images_per_second"])
        assert row["flops"] > 1e6 and row["parameters"] > 1e5 and row["peak_mib"] > 100
    assert len(table(report).splitlines()) == 1 + len(names)


@pytest.mark.thorough
def test_networks_of_keras_are_timed_as_peers(capsys):
    pytest.importorskip("keras_hub", reason="KerasHub isn't installed")
    flags = ["--batch_size=1", "--image_size=64", "--repeats=1", "--mode=forward", "--backends=tensorflow,jax"]
    assert main(["bench", "model", "resnet50_d", "--peers=keras_applications,keras_hub", *flags]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["backend"] for row in rows] == ["tensorflow", "jax"] * 3
    assert {round(row["parameters"], -5) for row in rows} == {25_600_000}


def test_invalid_arguments_are_refused():
    for changes, message in (
        ({"name": "resnet50d"}, "resnet50_d"),
        ({"peers": ("keras_application",)}, "keras_applications"),
        ({"backends": ("tensorflw",)}, "Did you mean tensorflow"),
        ({"backends": ()}, "--backends is empty"),
        ({"name": "timm"}, "must be from keras_bot, received timm"),
        ({"settings": StepSettings(mode="backward")}, "Unknown mode"),
        ({"settings": StepSettings(batch_size=0)}, "--batch_size must be at least 1"),
        ({"warmup": 0}, "--warmup must be at least 1"),
    ):
        with pytest.raises(MisuseError, match=message):
            bench_model(**{**TINY, **changes})


def test_a_failing_network_is_reported():
    with pytest.raises(RunError, match="cifar_resnet20_d on tensorflow failed: "):
        bench_model(**TINY, settings=StepSettings(batch_size=2**40, image_size=16))
