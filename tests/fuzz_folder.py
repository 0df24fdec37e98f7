"""Random image folders as people bring them, with what keras-bot should find in each."""

import dataclasses
import io
import os
import pathlib
import random
import string

import numpy as np
from PIL import Image

SCRIPTS = {
    "latin": "äéîõüßçøłœ",
    "greek": "αβγδΩΣπ",
    "cyrillic": "жщюяЁъ",
    "arabic": "ابتثجح",
    "hebrew": "אבגדה",
    "devanagari": "अआकखगि",
    "thai": "กขคงำ้",
    "han": "猫狗鳥魚",
    "kana": "ねこイヌ",
    "hangul": "고양이개",
    "emoji": "🐱🐶🏳️",
}
PRINTABLE = string.printable[:95].replace("/", "")  # letters, digits, punctuation and the space
FORMS = {  # suffix -> the form that Pillow writes, and its modes
    "jpg": ("JPEG", ("RGB", "L", "CMYK")),
    "jpeg": ("JPEG", ("RGB", "L")),
    "jfif": ("JPEG", ("RGB",)),
    "jpe": ("JPEG", ("RGB",)),
    "png": ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1")),
    "gif": ("GIF", ("RGB", "L")),
    "bmp": ("BMP", ("RGB", "L")),
    "webp": ("WEBP", ("RGB", "RGBA")),
    "tif": ("TIFF", ("RGB", "RGBA", "L", "P", "1")),
    "tiff": ("TIFF", ("RGB", "CMYK")),
    "ppm": ("PPM", ("RGB", "L")),
}
OTHERS = ("notes.txt", "x.heic", "labels.csv", "IMG_1", "a.jpg.bak", "b.mp4", "c.psd", ".hidden.png")


@dataclasses.dataclass
class Folder:
    """A random folder and what is in it, by split ("train", "val").

    Attributes:
        path: the folder.
        classes: names of the class folders that count.
        images: paths of everything that counts as an image, damaged ones too.
        damaged: those of them that can't be decoded, as metrics.json names them.
        skipped: how many entries are skipped.
    """

    path: pathlib.Path
    classes: list[str]
    images: dict[str, list[pathlib.Path]]
    damaged: dict[str, set[str]]
    skipped: dict[str, int]

    @property
    def is_trainable(self) -> bool:
        """Whether a training on it should succeed: it needs something to tell apart."""
        return len(self.classes) >= 2


class Maker:
    """Makes one folder of a seed."""

    def __init__(self, root: pathlib.Path, seed: int):
        self.random = random.Random(seed)
        self.path = root / self.name(control=False)
        self.images = {"train": [], "val": []}
        self.damaged = {"train": set(), "val": set()}
        self.skipped = {"train": 0, "val": 0}

    def name(self, *, control: bool = True, hidden: bool = False) -> str:
        """A file name of any printable characters and scripts; without control characters or blanks at its end."""
        letters = self.random.choice([PRINTABLE, string.ascii_letters, *SCRIPTS.values(), "".join(SCRIPTS.values())])
        name = "".join(self.random.choices(letters, k=self.random.randint(1, 14)))
        if control and self.random.random() < 0.05:
            name += self.random.choice(["\n", "\t", "\x1b[31m", os.fsdecode(b"\xff")]) + "x"
        name = name.lstrip(".").rstrip(" ") or "x"
        return f".{name}" if hidden else name

    def make(self) -> Folder:
        """Writes it."""
        count, names = self.random.choice([1, 2, 2, 2, 3, 3, 3, 4, 4, 5]), {}
        while len(names) < count:
            names[self.name()] = None
        classes = list(names)
        for split in ("train", "val"):
            for label in classes:
                if split == "train" or label == classes[0] or self.random.random() < 0.8:
                    self.fill(split, label)
            self.litter(split, self.path / split)
        return Folder(self.path, classes, self.images, self.damaged, self.skipped)

    def fill(self, split: str, label: str) -> None:
        """One class folder: one good image at least, others in it and below it, and what is no image."""
        folder = self.path / split / label
        folder.mkdir(parents=True)
        self.add(split, folder)
        for _ in range(self.random.randint(1, 5)):
            below = folder
            while self.random.random() < 0.2:
                below = below / self.name()
                below.mkdir(exist_ok=True)
            kind = self.random.choice(["image"] * 6 + ["damaged", "link", "other", "loop", "hidden"])
            if kind in ("image", "damaged"):
                self.add(split, below, damaged=kind == "damaged")
            elif kind == "link":
                target = self.path.parent / f"target{self.random.getrandbits(40)}.png"
                target.write_bytes(self.encode("PNG", "RGB"))
                self.place(split, below, "png").symlink_to(target)
            elif kind == "other":
                self.litter(split, below)
            elif not (below / "loop").exists():
                if kind == "loop":
                    (below / "loop").symlink_to(folder)
                else:
                    (below / self.name(hidden=True)).mkdir()
                self.skipped[split] += 1

    def add(self, split: str, folder: pathlib.Path, damaged: bool = False) -> None:
        suffix = self.random.choice(list(FORMS))
        form, modes = FORMS[suffix]
        path = self.place(split, folder, suffix)
        content = self.encode(form, self.random.choice(modes))
        if damaged:
            content = self.random.choice([b"", b"no image", content[:3], self.random.randbytes(200), b"RIFF", b"II*\0"])
            self.damaged[split].add(os.fsencode(path.relative_to(self.path)).decode(errors="replace"))
        path.write_bytes(content)

    def place(self, split: str, folder: pathlib.Path, suffix: str) -> pathlib.Path:
        """A new path with a suffix in any case."""
        while os.path.lexists(path := folder / f"{self.name()}.{self.case(suffix)}"):
            pass
        self.images[split].append(path)
        return path

    def case(self, text: str) -> str:
        return "".join(self.random.choice([c.lower(), c.upper()]) for c in text)

    def encode(self, form: str, mode: str) -> bytes:
        height, width = self.random.randint(1, 40), self.random.randint(1, 40)
        pixels = np.random.default_rng(self.random.getrandbits(30)).integers(0, 256, (height, width, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, form)
        return stream.getvalue()

    def litter(self, split: str, folder: pathlib.Path) -> None:
        """Files that are no images; some that file managers leave, which nobody wants to hear of."""
        for name in self.random.sample(OTHERS, self.random.randint(0, 2)):
            if not (folder / name).exists():
                (folder / name).write_bytes(b"something else")
                self.skipped[split] += 1
        if self.random.random() < 0.3:
            (folder / ".DS_Store").write_bytes(b"")
