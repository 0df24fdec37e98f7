"""The paper's recipe with torchvision, in its own process because TensorFlow is incompatible with forked workers.

The process stays alive and waits between turns. Only it imports PyTorch, which is not a dependency.
"""

import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, cast

from keras_bot.errors import MisuseError, RunError

_ENDLESS = 2**40
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class TorchPeer:
    """A DataLoader with one worker per core, ready to be timed. Use it in a `with` statement.

    Args:
        paths: JPEG files, read once before the first turn.
        batch_size: images per batch.
        image_size: their height and width.

    Raises:
        MisuseError: if torch or torchvision isn't installed.
    """

    def __init__(self, paths: Sequence[pathlib.Path], batch_size: int, image_size: int) -> None:
        missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
        if missing:
            raise MisuseError(
                f"--torch requires {' and '.join(missing)}, not installed in {sys.executable}. Install the missing "
                "packages, or drop --torch."
            )
        code = "from keras_bot.bench.torch_peer import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._send({"paths": [str(path) for path in paths], "batch_size": batch_size, "image_size": image_size})

    def __enter__(self) -> "TorchPeer":
        return self

    def __exit__(self, *_):
        cast(IO[str], self._process.stdin).close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        cast(IO[str], self._process.stdout).close()

    def __call__(self, warmup: int, batches: int) -> float:
        """Times `batches` batches after `warmup` untimed ones, with new workers.

        Raises:
            RunError: if the process ended.
        """
        self._send({"warmup": warmup, "batches": batches})
        line = cast(IO[str], self._process.stdout).readline()
        if not line:
            raise RunError("torchvision's process ended, see its output above. Run again without --torch.")
        return json.loads(line)["seconds"]

    def _send(self, message):
        try:
            stdin = cast(IO[str], self._process.stdin)
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
        except BrokenPipeError:  # the process ended; `__call__` reports the missing result
            pass


class Repeated:
    """A dataset in which item i is the transformed photo i % N, with i % N as its label."""

    def __init__(self, images: Sequence[bytes], transform: Callable[[Any], Any]) -> None:
        self._images = images
        self._transform = transform

    def __len__(self):
        return _ENDLESS

    def __getitem__(self, index):
        from PIL import Image

        encoded = self._images[index % len(self._images)]
        return self._transform(Image.open(io.BytesIO(encoded)).convert("RGB")), index % len(self._images)


def serve() -> None:
    """Runs the process: reads the settings from the first line of stdin, then one turn per line; prints its seconds."""
    import torch

    torch.set_num_threads(1)
    settings = json.loads(sys.stdin.readline())
    images = [pathlib.Path(path).read_bytes() for path in settings["paths"]]
    loader = torch.utils.data.DataLoader(
        Repeated(images, _transform(settings["image_size"])),
        batch_size=settings["batch_size"],
        num_workers=os.cpu_count(),
        multiprocessing_context="fork",
    )
    for line in sys.stdin:
        print(json.dumps({"seconds": time_batches(loader, **json.loads(line))}), flush=True)


def time_batches(loader: Iterable, warmup: int, batches: int) -> float:
    """Returns the seconds for `batches` batches of a fresh iterator, after `warmup` untimed ones."""
    iterator = iter(loader)
    for _ in range(warmup):
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return time.perf_counter() - start


def _transform(image_size):
    """Builds the recipe's augmentation, without PCA noise, which torchvision lacks.

    Hue 0.2 is a fraction of a full turn, +-72 degrees; the paper's 0.4 is a fraction of half a turn.
    """
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.4, saturation=0.4, hue=0.2),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
