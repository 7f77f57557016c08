"""The rate at which a plain ``for`` loop gets random crops of JPEG photos from us and from other loaders.

2,048 photos of about 90 KB are decoded by OpenCV, cropped at random, resized to 224 x 224 and mirrored, in batches of
64. Before and after each measurement a plain loop does the same. An epoch's images are compared with those of the plain
loop; those of tf.data, whose own functions make them, must differ by less than 12 levels on average.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil

from benchmarks import command, core, photo_jobs, photo_loaders
from benchmarks.core import Numbers, Round, Settings, Target, Way
from benchmarks.photo_loaders import Epoch, Open
from benchmarks.processes import megabytes_of_processes

_LOOKED_AT = 8  # every eighth photo is compared with the plain loop's
_WARM, _PLAIN = 64, 256  # photos of the plain loop, before and after; the first ones are not counted
_KILL_EVERY_S = 5.0


def _plain_rate(paths: list[str]) -> float:
    for number in (_WARM, _PLAIN):
        start = time.perf_counter()
        with photo_loaders.serial(paths[:number], 0, "") as epoch:
            for _ in epoch():
                pass
    return len(paths[:number]) / (time.perf_counter() - start)


def _cpu_s() -> float:
    """Return the CPU time, in seconds, of this process and all its descendants, alive or dead."""
    total = 0.0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    dead = resource.getrusage(resource.RUSAGE_CHILDREN)
    return total + dead.ru_utime + dead.ru_stime


def _read(batches: Iterator[Any], keeps: list[Any] | None) -> tuple[float, float, int]:
    """Read an epoch. Return (seconds to the first batch, seconds after it, photos after it)."""
    start, first_s, number, first = time.perf_counter(), 0.0, 0, 0
    for images, indices in batches:
        if not number:
            first_s, first = time.perf_counter() - start, len(images)
        number += len(images)
        if keeps is not None:
            keeps.append(indices)
    return first_s, time.perf_counter() - start - first_s, number - first


def _check(epoch: Epoch, paths: list[str], most: float) -> None:
    """Raise RuntimeError if an epoch lacks a photo, repeats one or has other pixels than the plain loop."""
    seen: list[int] = []
    for images, indices in epoch():
        for image, index in zip(np.asarray(images), np.asarray(indices).tolist(), strict=True):
            seen.append(index)
            if index % _LOOKED_AT == 0:
                difference = np.abs(image.astype(int) - photo_jobs.plain(paths[index], index)).mean()
                if difference > most:
                    raise RuntimeError(f"photo {index} differs from that of the plain loop by {difference:.3g} levels")
    if sorted(seen) != list(range(len(paths))):
        raise RuntimeError(f"an epoch had {len(seen)} photos, {len(set(seen))} of them different, of {len(paths)}")


def _measured(open_loader: Open, most: float, keeps_labels: bool, settings: Settings) -> Numbers:
    photo_jobs.only_one_thread()
    folder = settings.given["folder"]
    paths = photo_jobs.paths_in(folder)
    before = _plain_rate(paths)
    keeps: list[Any] | None = [] if keeps_labels else None
    start = time.perf_counter()
    with open_loader(paths, settings.num_workers, folder) as epoch:
        opened_s = time.perf_counter() - start
        first_s, seconds, number = _read(epoch(), keeps)
        cpu_s = _cpu_s()
        later_first_s, later_s, _ = _read(epoch(), keeps)
        cpu_s = _cpu_s() - cpu_s
        memory = megabytes_of_processes(os.getpid(), 1)
        _check(epoch, paths, most)
    plain = (before + _plain_rate(paths)) / 2
    first, later = number / seconds, len(paths) / (later_first_s + later_s)
    return {
        "first_epoch": first,
        "later_epoch": later,
        "times_serial": first / plain,
        "times_serial_later": later / plain,
        "per_cpu_s": len(paths) / cpu_s,
        "first_s": opened_s + first_s,
        "all_mb": memory["all_mb"],
    }


def _loop_apart(paths: list[str], start: Any, results: Any, number: int) -> None:
    photo_jobs.only_one_thread()
    start.wait()
    begin = time.perf_counter()
    for at, path in enumerate(paths):
        photo_jobs.plain(path, at)
    results[number] = len(paths) / (time.perf_counter() - begin)


def _separate(settings: Settings) -> Numbers:
    """Run as many plain loops as there are workers, in processes of their own, which deliver nothing."""
    photo_jobs.only_one_thread()
    paths = photo_jobs.paths_in(settings.given["folder"])
    before, count = _plain_rate(paths), settings.num_workers
    start = multiprocessing.Barrier(count)
    results: Any = multiprocessing.Array("d", count)
    processes = [
        multiprocessing.Process(target=_loop_apart, args=(paths[at::count], start, results, at)) for at in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    plain, rate = (before + _plain_rate(paths)) / 2, sum(results)
    return {
        "first_epoch": rate,
        "later_epoch": rate,
        "times_serial": rate / plain,
        "times_serial_later": rate / plain,
        "per_cpu_s": len(paths) / (used.ru_utime + used.ru_stime),
    }


def _killed(open_loader: Open, settings: Settings) -> Numbers:
    """Kill a worker every 5 seconds for 30 seconds, and count the photos that arrive of those in whole epochs."""
    paths = photo_jobs.paths_in(settings.given["folder"])
    over, kills = threading.Event(), [0]

    def kill() -> None:
        while not over.wait(_KILL_EVERY_S):
            found = [each for each in psutil.Process().children(recursive=True) if not each.children()]
            if found:
                found[kills[0] % len(found)].kill()
                kills[0] += 1

    arrived = epochs = 0
    with open_loader(paths, settings.num_workers, settings.given["folder"]) as epoch:
        _read(epoch(), None)
        thread = threading.Thread(target=kill)
        thread.start()
        until = time.monotonic() + 6 * _KILL_EVERY_S
        try:
            while time.monotonic() < until:
                epochs += 1
                for images, _ in epoch():
                    arrived += len(images)
        except Exception as error:
            print(f"the loop has ended: {type(error).__name__}: {error}"[:200])
        finally:
            over.set()
            thread.join()
        if arrived == epochs * len(paths):
            _check(epoch, paths, 0)
    return {"kills": kills[0], "lost": epochs * len(paths) - arrived}


_EXACT, _NEARLY = 0.0, 12.0  # levels by which pixels may differ on average
_THREAD: Any = {"executor": "thread"}
_OURS: dict[str, tuple[str, Open, float]] = {
    "photo": ("workers.prefetch, a photo a sample", photo_loaders.ours(), _EXACT),
    "labels": ("the same, the loop keeps the labels", photo_loaders.ours(), _EXACT),
    "in_place": ("workers.prefetch, workers.empty", photo_loaders.ours_in_place(), _EXACT),
    "batch": ("workers.prefetch, a batch a job", photo_loaders.ours_by_batch(), _EXACT),
    "thread": ("workers.prefetch, threads, a photo a sample", photo_loaders.ours(**_THREAD), _EXACT),
    "thread_batch": ("workers.prefetch, threads, a batch a job", photo_loaders.ours_by_batch(**_THREAD), _EXACT),
    "crop": ("load_image(crop=...)", photo_loaders.ours(photo_loaders.LOAD_IMAGE), _EXACT),
    "crop_tf": (
        'load_image(crop=..., backend="tensorflow")',
        photo_loaders.ours(photo_loaders.LOAD_IMAGE_TENSORFLOW),
        _EXACT,
    ),
    "crop_tf_thread": (
        'load_image(crop=..., backend="tensorflow"), threads',
        photo_loaders.ours(photo_loaders.LOAD_IMAGE_TENSORFLOW, **_THREAD),
        _EXACT,
    ),
    "fast_tf": (
        'load_image(crop=..., backend="tensorflow", fast=True)',
        photo_loaders.ours(photo_loaders.LOAD_IMAGE_FAST_TENSORFLOW),
        _NEARLY,
    ),
    "fast": ("load_image(crop=..., fast=True)", photo_loaders.ours(photo_loaders.LOAD_IMAGE_FAST), _NEARLY),
    "cache": (".cache()", photo_loaders.ours_cached(), _EXACT),
    "cache_thread": (".cache(), threads", photo_loaders.ours_cached(**_THREAD), _EXACT),
    "cache_folder": (".cache(folder)", photo_loaders.ours_cached("folder"), _EXACT),
}
_PEERS: dict[str, tuple[str, Open, float, tuple[str, ...]]] = {
    "torch": ("PyTorch DataLoader", photo_loaders.torch, _EXACT, ("torch",)),
    "grain": ("Grain mp_prefetch", photo_loaders.grain(False), _EXACT, ("grain",)),
    "grain_threads": ("Grain, threads", photo_loaders.grain(True), _EXACT, ("grain",)),
    "spdl": ("SPDL, threads", photo_loaders.spdl, _EXACT, ("spdl",)),
    "webdataset": ("WebDataset", photo_loaders.webdataset, _EXACT, ("webdataset", "torch")),
    "hugging_face": ("HF datasets + DataLoader", photo_loaders.hugging_face, _EXACT, ("datasets", "torch")),
    "keras": ("Keras OrderedEnqueuer", photo_loaders.keras, _EXACT, ("keras",)),
    "tfdata": ("tf.data, decode_and_crop_jpeg", photo_loaders.tensorflow(False), _NEARLY, ("tensorflow",)),
    "tfdata_cache": ("tf.data, cache()", photo_loaders.tensorflow(True), _NEARLY, ("tensorflow",)),
}


def _way(label: str, open_loader: Open, most: float, keeps: bool = False, packages: tuple[str, ...] = ()) -> Way:
    needed = ("workers", "cv2", "sklearn", "skimage", *packages)
    return Way(label, functools.partial(_measured, open_loader, most, keeps), needed)


JOBS = {
    "photos": core.Job(
        "random crops of photos",
        {
            "serial": _way("serial loop", photo_loaders.serial, _EXACT),
            "separate": Way("as many separate loops, nothing delivered", _separate, ("cv2", "sklearn", "skimage")),
            **{key: _way(label, made, most, key == "labels") for key, (label, made, most) in _OURS.items()},
            **{key: _way(label, made, most, False, needs) for key, (label, made, most, needs) in _PEERS.items()},
        },
    ),
    "kill": core.Job(
        "a worker is killed every 5 s",
        {
            "photo": Way(_OURS["photo"][0], functools.partial(_killed, _OURS["photo"][1])),
            "cache": Way(_OURS["cache"][0], functools.partial(_killed, _OURS["cache"][1])),
            "torch": Way(_PEERS["torch"][0], functools.partial(_killed, _PEERS["torch"][1]), ("torch",)),
        },
    ),
}

NAMES = {
    "first_epoch": "images/s, first epoch",
    "later_epoch": "images/s, second epoch",
    "times_serial": "x serial, first",
    "times_serial_later": "x serial, second",
    "per_cpu_s": "images for each s of CPU",
    "first_s": "first batch, s",
    "all_mb": "memory of all processes, MB",
    "kills": "workers killed",
    "lost": "photos lost",
}


def _of(way: str, other: str, name: str = "times_serial") -> Any:
    return lambda r: r("photos", way, name) / r("photos", other, "times_serial")


def _of_best_peer(r: Round) -> float:
    peers = [key for key in _PEERS if key != "tfdata_cache"]
    return r("photos", "cache", "times_serial_later") / r.best("photos", peers, "times_serial_later")


TARGETS = (
    Target("by photo, of as many separate loops", _of("photo", "separate"), ">=", 0.97),
    Target("by photo, labels kept, of as many separate loops", _of("labels", "separate"), ">=", 0.97),
    Target("load_image(crop=...), of tf.data", _of("crop", "tfdata"), ">=", 1.0),
    Target("load_image(crop=..., fast=True), of tf.data", _of("fast", "tfdata"), ">=", 1.2),
    Target(".cache(), second epoch, of the best peer without one", _of_best_peer, ">=", 3),
    Target(
        ".cache(), second epoch, of tf.data's cache()",
        lambda r: r("photos", "cache", "times_serial_later") / r("photos", "tfdata_cache", "times_serial_later"),
        ">=",
        1,
    ),
    Target("photos lost if workers are killed", lambda r: r("kill", "cache", "lost"), "<=", 0),
)


def _prepare(number: int, folder: str) -> None:
    photo_jobs.make_photos(folder, number)


if __name__ == "__main__":
    made = core.Suite(__file__, JOBS, NAMES, TARGETS, "times_serial", lambda way: way in _OURS)
    parser = command.parser_of(made, __doc__, seconds=0.0, deadline_s=180.0)
    parser.add_argument("--photos", type=int, default=2048, metavar="N", help="how many photos (2048)")
    number = parser.parse_known_args()[0].photos
    suite = core.Suite(
        made.file, JOBS, NAMES, TARGETS, made.chart, made.is_ours, prepare=functools.partial(_prepare, number)
    )
    command.main(suite, parser, ("photos",))
