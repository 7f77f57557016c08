"""Report the problems of a folder of TFRecord shards. Exits with 1 if there are any.

The label of a record, a tf.train.Example, is its feature --label, an integer or a string.
"""

from __future__ import annotations

import argparse
from typing import Any

from sampler import verify_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--example-per-class", type=int, default=2, metavar="N", help="records in a block (2)")
    parser.add_argument("--label", default="label", metavar="FEATURE", help="'' to leave out what classes they are of")
    parser.add_argument("--string", action="store_true", help="the label is a string")
    parser.add_argument("--compression", choices=("GZIP", "ZLIB"))
    parser.add_argument("--suffix", default="*.tfrec", metavar="PATTERN")
    options = parser.parse_args()

    def parse(record: Any) -> Any:
        import tensorflow as tf

        feature = tf.io.FixedLenFeature([], tf.string if options.string else tf.int64)
        return record, tf.io.parse_single_example(record, {options.label: feature})[options.label]

    problems = verify_shards(
        options.folder,
        options.example_per_class,
        parse if options.label else None,
        options.compression,
        shard_suffix=options.suffix,
    )
    for problem in problems:
        print(problem)
    print(f"{len(problems)} shards are wrong" if problems else "all is well")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
