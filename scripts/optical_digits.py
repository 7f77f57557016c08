"""The 1,797 digits of scikit-learn as a data set of TensorFlow Datasets. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

NUM_TRAIN = 1400


class OpticalDigits(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """PNG images (8, 8, 1) with values 0 to 255, and the digit that each shows."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
            "number": np.int64,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(True), "test": self._generate_examples(False)}

    def _generate_examples(self, is_train: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        digits = load_digits()
        images = (digits.images * (255 / 16)).astype(np.uint8)[..., None]
        for number, (image, label) in enumerate(zip(images, digits.target, strict=True)):
            if (number < NUM_TRAIN) is is_train:
                yield number, {"image": image, "label": int(label), "number": number}


def prepare(data_dir: str | os.PathLike[str], file_format: str = "tfrecord") -> None:
    """Write the data set to ``data_dir``, for ``tfds.load("optical_digits", data_dir=...)``."""
    OpticalDigits(data_dir=os.fspath(data_dir), file_format=file_format).download_and_prepare()
