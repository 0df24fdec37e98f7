"""Speed of a keras_bot network compared with its peers, in training and inference, on each backend."""

import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import IO, cast

from keras_bot import models
from keras_bot.bench.contestant import PEERS, Contestant, StepSettings
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, unknown

BACKENDS = ("tensorflow", "jax", "torch")
MODES = ("train", "forward")
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")
PROGRAM = "from keras_bot.bench.contestant import main; main()"
DEFAULT_SETTINGS = StepSettings()


def bench_model(
    name: str = "resnet50_d",
    peers: tuple[str, ...] = ("keras_applications",),
    backends: tuple[str, ...] = ("tensorflow",),
    settings: StepSettings = DEFAULT_SETTINGS,
    *,
    repeats: int = 5,
    warmup: int = 1,
    folded: bool = False,
) -> dict:
    """Times steps of several networks in turn, so that a busy machine slows all of them, and compares the medians.

    A train step is forward, cross-entropy from logits, backward and SGD with Nesterov momentum. Images and labels are
    random and stay in memory. keras_bot networks step as in `train`. Each network has its own process. Building,
    tracing and compiling happen before the timed steps.

    Args:
        name: a network from `models.names()`.
        peers: some of "keras_applications" (its ResNet50), "keras_hub" (ResNet-50-vd), "timm" (resnet50d, in plain
            PyTorch with channels last), or other keras_bot networks.
        backends: some of "tensorflow", "jax", "torch"; used for keras_bot networks and the Keras peers.
        settings: the step.
        repeats: timed steps per network.
        warmup: untimed steps per network before them; at least 1, since the first traces and compiles.
        folded: also time `name` with batch norm folded; inference only.

    Returns:
        The settings, and in "rows" for each network: name, backend, seconds (median per step), images_per_second,
        parameters, flops (multiply-adds per image, where known), peak_mib, and "ratio": the images per second of the
        first row (`name` on the first backend) divided by this row's.

    Raises:
        MisuseError: for an invalid name, backend or number, or a package that isn't installed.
        RunError: if a network's process fails.
    """
    _check(name, peers, backends, settings)
    expect_at_least_one(repeats=repeats, warmup=warmup)
    contestants = _contestants(name, peers, backends, settings, folded)
    rows = _time(contestants, repeats, warmup)
    for row in rows:
        row["ratio"] = rows[0]["images_per_second"] / row["images_per_second"]
    return {**dataclasses.asdict(settings), "repeats": repeats, "rows": rows}


def _contestants(name, peers, backends, settings, folded) -> list[Contestant]:
    step = dataclasses.asdict(settings)
    contestants = [Contestant(name=name, backend=backend, **step) for backend in backends]
    if folded and settings.mode == "forward":
        contestants += [dataclasses.replace(each, folded=True) for each in contestants]
    keras_peers = [peer for peer in peers if peer != "timm"]
    contestants += [Contestant(name=peer, backend=backend, **step) for peer in keras_peers for backend in backends]
    return contestants + [Contestant(name="timm", backend="torch", **step)] * ("timm" in peers)


def table(report: dict) -> str:
    """Formats the rows as text, one line per row."""
    lines = [f"{'network':<30}{'backend':<12}{'images/s':>9}{'peak MiB':>10}{'M param.':>10}{'first/this':>12}"]
    for row in report["rows"]:
        name = row["name"] + (", folded" if row["folded"] else "")
        figures = f"{row['images_per_second']:>9.1f}{row['peak_mib']:>10.0f}{row['parameters'] / 1e6:>10.2f}"
        lines.append(f"{name:<30}{row['backend']:<12}{figures}{row['ratio']:>12.2f}")
    return "\n".join(lines)


def _check(name, peers, backends, settings):
    networks = [*models.names(), *PEERS]
    for value, kind, choices in (
        *((each, "model", networks) for each in (name, *peers)),
        *((backend, "backend", BACKENDS) for backend in backends),
        (settings.mode, "mode", MODES),
        (settings.dtype, "dtype", DTYPES),
    ):
        if value not in choices:
            raise unknown(kind, value, choices)
    if name in PEERS:
        raise MisuseError(f"The network to compare must be from keras_bot, received {name}. Pass it in --peers.")
    if not backends:
        raise MisuseError(f"--backends is empty. Pass some of {', '.join(BACKENDS)}.")
    expect_at_least_one(batch_size=settings.batch_size, image_size=settings.image_size)
    needed = {
        *backends,
        *(("timm", "torch") if "timm" in peers else ()),
        *(["keras_hub"] if "keras_hub" in peers else ()),
    }
    if missing := sorted(package for package in needed if importlib.util.find_spec(package) is None):
        raise MisuseError(f"Cannot time {' and '.join(missing)}: not installed. Install the package or leave it out.")


def _time(contestants, repeats, warmup) -> list[dict]:
    """Starts all contestants one after another, runs their steps in turn and returns one row for each."""
    running: list[_Running] = []
    try:
        for contestant in contestants:
            running.append(_Running(contestant, warmup))
        for _ in range(repeats):
            for each in running:
                each.seconds.append(each.step())
        return [each.end() for each in running]
    finally:
        for each in running:
            each.process.kill()


class _Running:
    """The process of a contestant, after its warmup steps. Raises RunError if the process ends early."""

    def __init__(self, contestant: Contestant, warmup: int) -> None:
        self.contestant = contestant
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        settings = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(dataclasses.asdict(contestant))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **settings, "KERAS_BACKEND": contestant.backend},
        )
        self.size = json.loads(self._read_line())
        self.seconds: list[float] = []
        for _ in range(warmup):
            self.step()

    def step(self) -> float:
        print(file=self.process.stdin, flush=True)
        return float(self._read_line())

    def end(self) -> dict:
        cast(IO[str], self.process.stdin).close()
        peak, median = float(self._read_line()), statistics.median(self.seconds)
        self.process.wait()
        names = {"name": self.contestant.name, "backend": self.contestant.backend, "folded": self.contestant.folded}
        speed = self.contestant.batch_size / median
        return {**names, "seconds": median, "images_per_second": speed, "peak_mib": round(peak, 1), **self.size}

    def _read_line(self) -> str:
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            self._stderr.seek(0)
            error = (self._stderr.read().strip().splitlines() or ["no error message"])[-1]
            raise RunError(f"{self.contestant.name} on {self.contestant.backend} failed: {error}")
        return line
