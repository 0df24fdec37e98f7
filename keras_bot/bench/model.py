"""Speed of a keras_bot network compared with its peers, in training and inference, on each backend."""

import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile

from keras_bot import models
from keras_bot.bench.contestant import PEERS, Contestant
from keras_bot.errors import MisuseError, RunError, expect_at_least_one, unknown

BACKENDS = ("tensorflow", "jax", "torch")
MODES = ("train", "forward")
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")
START = "from keras_bot.bench.contestant import main; main()"


def bench_model(
    name: str = "resnet50_d",
    peers: tuple[str, ...] = ("keras_applications",),
    backends: tuple[str, ...] = ("tensorflow",),
    *,
    mode: str = "train",
    batch_size: int = 16,
    image_size: int = 224,
    dtype: str = "float32",
    repeats: int = 5,
    warmup: int = 1,
    jit: bool = False,
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
        mode: "train" or "forward" (inference).
        batch_size: images per step.
        image_size: their height and width.
        dtype: dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        repeats: timed steps per network.
        warmup: untimed steps per network before them; at least 1, since the first traces and compiles.
        jit: compile with XLA or torch.compile; always on with JAX.
        folded: also time `name` with batch norm folded; inference only.

    Returns:
        The settings, and in "rows" for each network: name, backend, seconds (median per step), images_per_second,
        parameters, flops (multiply-adds per image, where known), peak_mib, and "ratio": the images per second of the
        first row (`name` on the first backend) divided by this row's.

    Raises:
        MisuseError: for an invalid name, backend or number, or a package that isn't installed.
        RunError: if a network's process fails.
    """
    settings = {"mode": mode, "batch_size": batch_size, "image_size": image_size, "dtype": dtype, "jit": jit}
    _check(name, peers, backends, settings, repeats, warmup)
    contestants = [Contestant(name, backend, **settings) for backend in backends]
    if folded and mode == "forward":
        contestants += [Contestant(name, backend, **settings, folded=True) for backend in backends]
    contestants += [Contestant(peer, b, **settings) for peer in peers if peer != "timm" for b in backends]
    contestants += [Contestant("timm", "torch", **settings)] * ("timm" in peers)
    rows = _race(contestants, repeats, warmup)
    for row in rows:
        row["ratio"] = rows[0]["images_per_second"] / row["images_per_second"]
    return {**settings, "repeats": repeats, "rows": rows}


def table(report: dict) -> str:
    """Formats the rows as text, one line per row."""
    lines = [f"{'network':<30}{'backend':<12}{'images/s':>9}{'peak MiB':>10}{'M param.':>10}{'ours/its':>10}"]
    for row in report["rows"]:
        name = row["name"] + (", folded" if row["folded"] else "")
        figures = f"{row['images_per_second']:>9.1f}{row['peak_mib']:>10.0f}{row['parameters'] / 1e6:>10.2f}"
        lines.append(f"{name:<30}{row['backend']:<12}{figures}{row['ratio']:>10.2f}")
    return "\n".join(lines)


def _check(name, peers, backends, settings, repeats, warmup):
    known = [*models.names(), *PEERS]
    for wanted, what, choices in (
        *((each, "model", known) for each in (name, *peers)),
        *((backend, "backend", BACKENDS) for backend in backends),
        (settings["mode"], "mode", MODES),
        (settings["dtype"], "dtype", DTYPES),
    ):
        if wanted not in choices:
            raise unknown(what, wanted, choices)
    if name in PEERS or not backends:
        raise MisuseError(
            f"Expected a network of ours and a backend, received {name} and {', '.join(backends) or 'none'}."
        )
    sizes = {name: settings[name] for name in ("batch_size", "image_size")}
    expect_at_least_one(**sizes, repeats=repeats, warmup=warmup)
    needed = {
        *backends,
        *(("timm", "torch") if "timm" in peers else ()),
        *(["keras_hub"] if "keras_hub" in peers else ()),
    }
    if missing := sorted(package for package in needed if importlib.util.find_spec(package) is None):
        raise MisuseError(f"Expected {' and '.join(missing)} to be installed, to be measured. Install, or leave out.")


def _race(contestants, repeats, warmup) -> list[dict]:
    """Starts all contestants one after another, steps them in turn, ends them and returns one row for each."""
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
    """A contestant's process, warmed up. Raises RunError if the process ends early."""

    def __init__(self, contestant: Contestant, warmup: int):
        self.contestant = contestant
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        quiet = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(dataclasses.asdict(contestant))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **quiet, "KERAS_BACKEND": contestant.backend},
        )
        self.facts = json.loads(self._answer())
        self.seconds: list[float] = []
        for _ in range(warmup):
            self.step()

    def step(self) -> float:
        print(file=self.process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> dict:
        self.process.stdin.close()
        peak, median = float(self._answer()), statistics.median(self.seconds)
        self.process.wait()
        told = {"name": self.contestant.name, "backend": self.contestant.backend, "folded": self.contestant.folded}
        speed = self.contestant.batch_size / median
        return {**told, "seconds": median, "images_per_second": speed, "peak_mib": round(peak, 1), **self.facts}

    def _answer(self) -> str:
        answer = self.process.stdout.readline()
        if not answer:
            self.said.seek(0)
            said = self.said.read().strip().splitlines() or ["nothing was said"]
            raise RunError(f"{self.contestant.name} on {self.contestant.backend} failed: {said[-1]}")
        return answer
