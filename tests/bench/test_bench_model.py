import pytest

from keras_bot.bench.model import bench_model
from keras_bot.errors import MisuseError

TINY = {
    "name": "cifar_resnet20_d",
    "peer": "cifar_resnet20_a",
    "batch_size": 2,
    "image_size": 16,
    "repeats": 2,
}


@pytest.mark.parametrize("options", [{"mode": "train"}, {"mode": "forward", "dtype": "mixed_bfloat16", "jit": True}])
def test_report_agrees_with_itself(options):
    report = bench_model(**TINY, **options)
    for key in ("model", "peer"):
        assert report[key]["images_per_second"] == pytest.approx(2 / report[key]["seconds"])
        assert report[key]["flops"] > 0
    ratio = report["model"]["images_per_second"] / report["peer"]["images_per_second"]
    assert report["ratio"] == pytest.approx(ratio)
    assert report["mode"] == options["mode"]


def test_bad_arguments_are_refused():
    with pytest.raises(MisuseError, match="resnet50_d"):
        bench_model("resnet50d")
    with pytest.raises(MisuseError, match="keras_applications"):
        bench_model(**{**TINY, "peer": "keras_application"})
    with pytest.raises(ValueError, match="train, forward"):
        bench_model(mode="backward")
    with pytest.raises(ValueError, match="at least 1"):
        bench_model(warmup=0)
