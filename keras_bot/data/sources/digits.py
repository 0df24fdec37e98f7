"""`digits`: a real data set that needs no download, as an ordinary TFDS set.

1,797 handwritten digits of 8x8 grey pixels from scikit-learn's `load_digits` (the test half of the UCI
"Optical Recognition of Handwritten Digits" set), values 0..16 scaled to uint8 0..255. The split is fixed and
stratified: every fifth image of each class, in file order, is in `test` (355) and the others are in `train`
(1,442). Importing this module registers the builder for `tfds.builder("digits")`.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of `digits`: {"image": uint8 (8, 8, 1), "label": 0..9}, splits `train` and `test`."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS 4.9.10 would look these up with `importlib_resources`, which it requires but does not install.
    pkg_dir_path = tfds.core.Path(__file__).parent
    code_path = tfds.core.Path(__file__)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Handwritten digits, 8x8 grey pixels, from scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        images, labels, in_test = _load()
        return {
            "train": self._generate_examples(images, labels, ~in_test),
            "test": self._generate_examples(images, labels, in_test),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Iterator:
        for index in np.flatnonzero(chosen):
            yield int(index), {"image": images[index], "label": int(labels[index])}


def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns all images uint8 (1797, 8, 8, 1), their labels (1797,), and the mask of test images, bool (1797,)."""
    from sklearn.datasets import load_digits  # slow to import and only needed to prepare the set

    digits = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
    in_test = np.zeros(len(images), bool)
    for label in range(10):
        in_test[np.flatnonzero(digits.target == label)[4::5]] = True
    return images, digits.target, in_test
