"""Draw examples of ``report.plot``, ``save``, ``trace`` and ``workers.preview``.

They show a loop with 2 workers, one of which dies; a loop with 32 workers; and two views each of six photos.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import skimage
import sklearn.datasets

from sampler import ContrastiveAugmenter, MultiShotMemorySampler, SingleShotMemorySampler, load_image
from workers import preview


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    """Wait for 5 to 15 ms; for about one batch in 25, wait 10 times as long."""
    seconds = 0.005 + 0.01 * float(x[0, 0] % 7) / 7
    time.sleep(seconds * (10 if x[0, 0] % 50 == 0 else 1))
    return x, y


def pipeline(nb_workers: int, dies: bool) -> Any:
    """Return the report of a loop with steps of 4 ms. ``dies``: one worker is killed meanwhile."""
    x = np.arange(2000).reshape(500, 4)
    seq = MultiShotMemorySampler(x, np.arange(500) % 10, augmenter=augment, steps_per_epoch=200, seed=1)
    with seq.prefetch(nb_workers=nb_workers) as batches:
        for number, _ in enumerate(batches):
            time.sleep(0.004)
            if dies and number == 100:
                pid = batches.report().workers[0].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
        return batches.report()


def photos() -> Any:
    """Return a batch of photos."""
    folder = Path(skimage.__file__).parent / "data"
    paths = [str(folder / name) for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")]
    paths += sklearn.datasets.load_sample_images()["filenames"]
    views = albumentations.Compose(
        [albumentations.RandomResizedCrop((96, 96)), albumentations.HorizontalFlip(), albumentations.ColorJitter()]
    )
    seq = SingleShotMemorySampler(
        paths,
        ContrastiveAugmenter(lambda image: views(image=image)["image"]),
        class_per_batch=6,
        steps_per_epoch=1,
        load_example_fn=load_image,
        seed=1,
    )
    with seq.prefetch(nb_workers=1) as batches:
        return next(iter(batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("pictures"), help="where they go (pictures)")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    few = pipeline(2, dies=True)
    print(few)
    made = [few.plot(folder / "2-workers.png"), pipeline(32, dies=False).plot(folder / "32-workers.png")]
    made += [preview(photos(), folder / "photos.png"), few.trace(folder / "2-workers.json")]
    made.append(few.save(folder / "2-workers.html"))
    print(*made, sep="\n")


if __name__ == "__main__":
    main()
