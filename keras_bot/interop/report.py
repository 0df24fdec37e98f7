"""Report of an import: the use of each tensor in a file."""

import json
import math
from dataclasses import dataclass, field

import numpy as np

from keras_bot.deprecation import renamed_attributes


@dataclass(frozen=True)
class Use:
    """A tensor of a file and the weight of our network that it was assigned to, with both shapes."""

    tensor: str
    tensor_shape: tuple[int, ...]
    layer: str
    weight: str
    shape: tuple[int, ...]

    __getattr__ = renamed_attributes(theirs="tensor", their_shape="tensor_shape")


@dataclass(frozen=True)
class Report:
    """Result of an import.

    Args:
        source: the library.
        model: the network's name, one of `models.names()`.
        num_classes: number of classes of the network; None without a head.
        file_classes: number of classes of the file's head; None if it has no head.
        head: "kept", "new" (the file's head is not used) or "none".
        uses: every tensor that was used, each once.
        ignored: tensors that the network doesn't need, such as PyTorch's `num_batches_tracked`.
        notes: further information, one sentence each.
        preprocessing: the source's preprocessing, see `preprocessing.find_preprocessing`. `takes` is the normalisation
            that the network now expects, "ours" or "theirs".
        file: name and SHA-256 of the file; {} if there is no file.
        class_names: class names of the head, if the file's config contains them.
    """

    source: str
    model: str
    num_classes: int | None
    file_classes: int | None
    head: str
    uses: tuple[Use, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    preprocessing: dict
    file: dict = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def __str__(self):
        return self.table()

    def table(self, verbose: bool = False) -> str:
        """Returns the report as text; `verbose` lists every tensor with its shapes."""
        parameters = sum(math.prod(use.shape) for use in self.uses)
        rows = [("network", self.model), ("classes", f"{self.num_classes}, head {self.head}")]
        rows += [("tensors used", f"{len(self.uses)}, {parameters:,} values"), ("ignored", str(len(self.ignored)))]
        shown = ("image_size", "eval_crop", "interpolation", "channels", "takes")
        rows += [
            ("images", ", ".join(f"{key} {self.preprocessing[key]}" for key in shown if key in self.preprocessing))
        ]
        lines = [f"{name:<13} {value}" for name, value in rows] + [f"{'note':<13} {note}" for note in self.notes]
        if verbose:
            width = max(len(use.tensor) for use in self.uses)
            lines += [""] + [
                f"{use.tensor:<{width}}  {use.tensor_shape}  ->  {use.layer}/{use.weight}  {use.shape}"
                for use in self.uses
            ]
        return "\n".join(lines)

    def description(self) -> dict:
        """Returns the JSON description that is saved with the network, as `--init_from` reads it.

        `recipe` has the source's image size and crop but no interpolation: images are resized as keras_bot does.
        """
        content = {
            "class_names": list(self.class_names) if self.head == "kept" else [],
            "num_classes": self.num_classes,
            "source": {"library": self.source, "head": self.head, **self.file},
            "preprocessing": self.preprocessing,
            "notes": list(self.notes),
            "recipe": {"model": self.model, "image_size": self.preprocessing["image_size"]}
            | {"eval_crop": self.preprocessing["eval_crop"], "transform": "imagenet"},
        }
        return json.loads(json.dumps(content, default=_plain))


def _plain(value):
    return value.item() if isinstance(value, np.generic) else str(value)
