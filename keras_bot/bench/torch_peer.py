"""torchvision's way through the paper's recipe, in a process of its own: TensorFlow and forked workers don't mix.

The process stays up and waits between its turns. PyTorch is imported there alone and is no dependency.
"""

import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence

from keras_bot.errors import MisuseError, RunError

_ENDLESS = 2**40
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class TorchPeer:
    """A DataLoader with one worker a core, ready to be timed. Use it in a `with` statement.

    Args:
        paths: JPEG files; they are read once, before the first turn.
        batch_size: images in a batch.
        image_size: their height and width.

    Raises:
        MisuseError: if torch or torchvision isn't installed.
    """

    def __init__(self, paths: Sequence[pathlib.Path], batch_size: int, image_size: int):
        missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
        if missing:
            raise MisuseError(
                f"--torch needs {' and '.join(missing)}, which {sys.executable} lacks. Install or drop it."
            )
        code = "from keras_bot.bench.torch_peer import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._tell({"paths": [str(path) for path in paths], "batch_size": batch_size, "image_size": image_size})

    def __enter__(self) -> "TorchPeer":
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __call__(self, warmup: int, batches: int) -> float:
        """Seconds of `batches` batches after `warmup` untimed ones, by new workers. RunError if the process ended."""
        self._tell({"warmup": warmup, "batches": batches})
        answer = self._process.stdout.readline()
        if not answer:
            raise RunError("torchvision's process ended; what it said is above. Run again without --torch.")
        return json.loads(answer)["seconds"]

    def _tell(self, message):
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it ended: the answer that isn't there tells so
            pass


class Repeated:
    """What the DataLoader reads: item i is photo i % N, transformed, with a label."""

    def __init__(self, images: Sequence[bytes], transform):
        self._images = images
        self._transform = transform

    def __len__(self):
        return _ENDLESS

    def __getitem__(self, index):
        from PIL import Image

        encoded = self._images[index % len(self._images)]
        return self._transform(Image.open(io.BytesIO(encoded)).convert("RGB")), index % len(self._images)


def serve():
    """The process: settings on the first line of standard input, then a turn a line, answered by its seconds."""
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
        print(json.dumps({"seconds": draw(loader, **json.loads(line))}), flush=True)


def draw(loader: Iterable, warmup: int, batches: int) -> float:
    """Seconds that `batches` batches of a fresh iterator take, behind `warmup` others."""
    iterator = iter(loader)
    for _ in range(warmup):
        next(iterator)
    began = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return time.perf_counter() - began


def _transform(image_size):
    """The recipe less PCA noise, which torchvision lacks. A hue of 0.2 is the paper's 0.4: 72 degrees either way."""
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
