"""Peak memory of the training pipeline, which must not grow with the number of images."""

import json
import pathlib
import subprocess
import sys

from keras_bot.errors import RunError

IMAGES = (1_000, 100_000)


def bench_memory(
    folder: str | pathlib.Path, *, image_size: int = 224, batch_size: int = 64, images: tuple[int, ...] = IMAGES
) -> dict:
    """Runs an epoch of `data.train_pipeline` in a fresh process for each number of images.

    Args:
        folder: directory of JPEGs, which are repeated up to the number of images.
        image_size: height and width of the pipeline's images.
        batch_size: images per batch.
        images: increasing numbers of images, each at least `batch_size`.

    Returns:
        peak_mib: {number of images: the process's peak resident memory in MiB, including TensorFlow}, and
        growth_mib: the last minus the first.

    Raises:
        RunError: if a process fails.
    """
    peaks = {str(count): _peak_in_process(folder, image_size, batch_size, count) for count in images}
    return {"peak_mib": peaks, "growth_mib": round(peaks[str(images[-1])] - peaks[str(images[0])], 1)}


def _peak_in_process(folder, image_size, batch_size, count):
    code = "from keras_bot.bench.memory import run_epoch; run_epoch()"
    settings = json.dumps([str(folder), image_size, batch_size, count])
    process = subprocess.run(
        [sys.executable, "-c", code, settings], capture_output=True, encoding="utf-8", errors="replace"
    )
    if process.returncode:
        error = (process.stderr.strip().splitlines() or ["no error message"])[-1]
        raise RunError(f"The process that measures memory with {count} images failed: {error}")
    return round(json.loads(process.stdout.splitlines()[-1]), 1)


def run_epoch() -> None:
    """Runs one epoch with the settings in `sys.argv[1]` and prints the peak memory in MiB."""
    from keras_bot import data
    from keras_bot.bench.jpegs import read_jpegs

    folder, image_size, batch_size, count = json.loads(sys.argv[1])
    source = read_jpegs(folder).source(count)
    for _ in data.train_pipeline(source, data.TrainConfig(batch_size=batch_size, image_size=image_size, epochs=1)):
        pass
    print(peak_mib())


def peak_mib() -> float:
    """Returns the peak resident memory of this process so far, in MiB.

    On Linux it reads VmHWM, because `ru_maxrss` there is at least the parent's memory when it started this process.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
