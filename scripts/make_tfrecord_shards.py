"""Write shards of one class each, for TFRecordDatasetSampler, from a folder of class folders or a TFDS data set.

    scripts/make_tfrecords --images photos/ --out shards/ --size 64 64
    scripts/make_tfrecords --dataset mnist --splits train --out shards/

Each record is a tf.train.Example with "image" (PNG bytes), "label" (an integer) and "class" (its name).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sampler import load_image, write_class_shards

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def of_folder(folder: Path, size: tuple[int, int] | None) -> tuple[Iterator[Any], list[int], list[str]]:
    """Return (images, labels, names of the classes) of a folder of class folders."""
    names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    paths = [(path, label) for label, name in enumerate(names) for path in sorted((folder / name).rglob("*"))]
    paths = [(path, label) for path, label in paths if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise SystemExit(f"{folder} holds no folders of images")
    return (load_image(path, size) for path, _ in paths), [label for _, label in paths], names


def of_dataset(options: argparse.Namespace) -> tuple[Iterator[Any], Iterator[int], list[str]]:
    """Return the same for a data set of TensorFlow Datasets. It is read twice, the second time for the labels."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    builder.download_and_prepare()
    feature = builder.info.features[options.y_key]
    names = getattr(feature, "names", None) or [str(label) for label in range(feature.num_classes)]

    def column(key: str) -> Iterator[Any]:
        only = tfds.decode.PartialDecoding({key: True})
        for dataset in builder.as_dataset(split=options.splits, decoders=only, shuffle_files=False):
            for example in dataset.as_numpy_iterator():
                yield example[key]

    return column(options.x_key), (int(label) for label in column(options.y_key)), names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="FOLDER", help="of class folders with images")
    source.add_argument("--dataset", metavar="NAME", help="of TensorFlow Datasets")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="to resize images to")
    parser.add_argument("--splits", nargs="+", default=["train"], metavar="SPLIT")
    parser.add_argument("--x-key", default="image")
    parser.add_argument("--y-key", default="label")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where the data set is prepared")
    parser.add_argument("--example-per-class", type=int, default=2, metavar="N", help="records in a block (2)")
    parser.add_argument("--examples-per-shard", type=int, default=1000, metavar="N")
    parser.add_argument("--compression", choices=("GZIP", "ZLIB"))
    parser.add_argument("--remainder", choices=("pad", "drop"), default="pad")
    options = parser.parse_args()
    labels: Iterable[int]
    if options.images:
        images, labels, names = of_folder(options.images, tuple(options.size) if options.size else None)
    else:
        images, labels, names = of_dataset(options)

    import tensorflow as tf
    from PIL import Image

    def serialize(image: Any, label: int) -> bytes:
        array = np.asarray(image)
        picture = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
        if options.size and options.dataset:
            picture = picture.resize((options.size[1], options.size[0]), Image.Resampling.BILINEAR)
        png = io.BytesIO()
        picture.save(png, "PNG")
        values = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png.getvalue()])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            "class": tf.train.Feature(bytes_list=tf.train.BytesList(value=[names[label].encode()])),
        }
        record: bytes = tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()
        return record

    index = write_class_shards(
        images,
        labels,
        options.out,
        serialize,
        compression=options.compression,
        example_per_class=options.example_per_class,
        remainder=options.remainder,
        examples_per_shard=options.examples_per_shard,
    )
    records = sum(shard["records"] for shard in index["shards"].values())
    print(f"{records} records of {len(names)} classes in {len(index['shards'])} shards: {options.out}")


if __name__ == "__main__":
    main()
