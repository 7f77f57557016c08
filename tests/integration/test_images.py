"""``load_image``: the right pixels of files of every kind, and the same by each decoder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampler import image_size, load_image, random_flip, random_resized_crop
from workers import prefetch

cv2: Any = pytest.importorskip("cv2")

pytestmark = pytest.mark.needs("cv2", "simplejpeg", "skimage", "tensorflow")

BACKENDS: list[Any] = ["simplejpeg", "cv2", "tensorflow", "pillow"]
HEIGHT, WIDTH = 93, 131


@pytest.fixture(scope="module")
def photo() -> Any:
    import skimage.data

    found = cv2.resize(skimage.data.astronaut(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).normal(0, 4, found.shape)
    return np.clip(found + noise, 0, 255).astype(np.uint8)


def jpeg(pixels: Any, **options: Any) -> bytes:
    made = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(made, "JPEG", quality=90, **options)
    return made.getvalue()


def by_pillow(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


KINDS: dict[str, Callable[[Any], bytes]] = {
    "4:4:4": lambda photo: jpeg(photo, subsampling=0),
    "4:2:2": lambda photo: jpeg(photo, subsampling=1),
    "4:2:0": lambda photo: jpeg(photo, subsampling=2),
    "progressive": lambda photo: jpeg(photo, progressive=True),
    "restarts": lambda photo: jpeg(photo, restart_marker_rows=1),
    "grey": lambda photo: jpeg(Image.fromarray(photo).convert("L")),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_all_decoders_return_the_same_pixels(kind: str, backend: Any, photo: Any) -> None:
    content = KINDS[kind](photo)
    whole, rng = by_pillow(content), np.random.default_rng(1)
    assert np.array_equal(load_image(content, backend=backend), whole)
    assert image_size(content) == (HEIGHT, WIDTH)
    for _ in range(20):
        top, left, height, width = crop = random_resized_crop(rng, HEIGHT, WIDTH)
        found = load_image(content, crop=crop, backend=backend)
        assert np.array_equal(found, whole[top : top + height, left : left + width]), crop
    for size, crop_ in (((20, 30), None), ((40, 50), (3, 5, 85, 110)), ((11, 11), (3, 5, 88, 120))):
        wanted = load_image(content, size, crop_, backend="pillow")
        assert np.array_equal(load_image(content, size, crop_, backend=backend), wanted)
        assert wanted.shape == (*size, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_and_crops_show_the_same_part(backend: Any, photo: Any) -> None:
    photo = cv2.GaussianBlur(photo, (9, 9), 2)
    content = jpeg(photo, subsampling=0)
    for crop in ((0, 0, 80, 120), (13, 11, 80, 120), (5, 3, 60, 90)):
        top, left, height, width = crop
        half = (width // 2, height // 2)
        part = photo[top : top + height, left : left + width]
        wanted = cv2.resize(part, half, interpolation=cv2.INTER_AREA).astype(int)
        for fast in (False, True):
            found = load_image(content, half[::-1], crop, backend=backend, fast=fast)
            distance = np.abs(found - wanted).mean()
            assert distance < 4, (crop, fast)
            for axis in (0, 1):  # it would be greater if the part were off by a pixel
                assert distance < np.abs(found - np.roll(wanted, 1, axis)).mean() / 1.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_fast_differs_little(backend: Any, photo: Any) -> None:
    content = jpeg(cv2.GaussianBlur(photo, (5, 5), 2))
    exact = load_image(content, backend=backend).astype(int)
    assert np.abs(load_image(content, backend=backend, fast=True) - exact).mean() < 2


def test_crops_by_a_function(photo: Any) -> None:
    content, asked = jpeg(photo), []

    def lower_half(height: int, width: int) -> Any:
        asked.append((height, width))
        return height // 2, 0, height - height // 2, width

    def wrong(height: int, width: int) -> Any:
        raise LookupError("of the function")

    for backend in BACKENDS:
        for kind in (content, saved("PNG", Image.fromarray(photo))):
            found = load_image(kind, crop=lower_half, backend=backend)
            assert np.array_equal(found, by_pillow(kind)[HEIGHT // 2 :])
            assert found.flags.writeable
            with pytest.raises(LookupError, match="of the function"):
                load_image(kind, crop=wrong, backend=backend)
            with pytest.raises(TypeError, match="crop must be"):
                load_image(kind, crop=lambda height, width: (1, 2), backend=backend)
    assert set(asked) == {(HEIGHT, WIDTH)}


def test_crops_in_shares(photo: Any) -> None:
    content = jpeg(photo)
    whole = by_pillow(content)
    assert np.array_equal(load_image(content, crop=(0.0, 0.0, 1.0, 1.0)), whole)
    assert np.array_equal(load_image(content, crop=(0.5, 0.0, 0.5, 1.0)), whole[46:])
    assert np.array_equal(load_image(content, crop=(0, 0.25, 1, 0.5)), whole[:, 33:98])
    assert load_image(content, crop=(0.999, 0.999, 0.001, 0.001)).shape == (1, 1, 3)
    assert np.array_equal(load_image(content, crop=np.array([1, 2, 3, 4])), whole[1:4, 2:6])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_photos_are_upright(orientation: int, backend: Any, photo: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(photo, exif=exif)
    from PIL import ImageOps

    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    found = load_image(content, backend=backend)
    assert np.array_equal(found, wanted)
    assert image_size(content) == wanted.shape[:2]
    assert np.array_equal(load_image(content, crop=(10, 20, 50, 60), backend=backend), wanted[10:60, 20:80])
    part = load_image(content, (25, 30), (10, 20, 50, 60), backend=backend).astype(int)
    half = cv2.resize(wanted[10:60, 20:80], (30, 25), interpolation=cv2.INTER_AREA)
    assert np.abs(part - half).mean() < 12


def saved(kind: str, image: Image.Image, **options: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_other_kinds_of_files(backend: Any, photo: Any) -> None:
    image = Image.fromarray(photo)
    for content in (saved("PNG", image), saved("WebP", image, lossless=True), saved("BMP", image), saved("GIF", image)):
        assert np.array_equal(load_image(content, backend=backend), by_pillow(content))
        assert np.array_equal(load_image(content, crop=(5, 6, 7, 8), backend=backend), by_pillow(content)[5:12, 6:14])
    with_alpha = image.copy()
    with_alpha.putalpha(Image.fromarray(photo[..., 0]))
    content = saved("PNG", with_alpha)
    assert np.array_equal(load_image(content, backend=backend), photo)
    assert np.array_equal(load_image(content, mode="RGBA", backend=backend), np.asarray(with_alpha))
    grey = np.arange(0, 6000, 100, np.uint16).reshape(6, 10)
    for values in (grey, grey // 30):
        content = saved("PNG", Image.fromarray(values))
        wanted = (values >> 8 if values.max() > 255 else values).astype(np.uint8)
        assert np.array_equal(load_image(content, backend=backend), np.repeat(wanted[..., None], 3, 2))
    cmyk = jpeg(image.convert("CMYK"))
    assert np.array_equal(load_image(cmyk, backend=backend), by_pillow(cmyk))
    content = jpeg(photo)
    grey_image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert np.array_equal(load_image(content, mode="L", backend=backend), grey_image)
    assert load_image(content, mode="RGBA", backend=backend)[..., 3].min() == 255


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_what_is_no_image(backend: Any, photo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg(photo)
    for name, damaged in {
        "truncated": content[: len(content) // 2],
        "text": b"this is no image",
        "empty": b"",
        "a header alone": content[:200],
    }.items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name}.jpg"):
            load_image(path, backend=backend)
        with pytest.raises(ValueError, match="bytes"):
            load_image(damaged, crop=(0, 0, 5, 5), backend=backend)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "nowhere.jpg", backend=backend)
    with pytest.raises(ValueError, match="93 x 131 pixels"):
        load_image(content, crop=(90, 0, 10, 10), backend=backend)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="bomb"):
        load_image(content, backend=backend)


def test_damage_within_a_file_gives_one_result(photo: Any) -> None:
    content = bytearray(jpeg(photo))
    content[len(content) // 2 : len(content) // 2 + 4] = b"\x12\x34\x56\x78"
    results = []
    for backend in BACKENDS:
        try:
            results.append(load_image(bytes(content), backend=backend).tobytes())
        except ValueError as error:
            results.append(str(error).encode())
    assert len(set(results)) == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"size": 10}, "size must be"),
    ({"size": (0, 1)}, "size must be"),
    ({"size": (1.5, 1)}, "size must be"),
    ({"crop": (1, 2, 3)}, "crop must be"),
    ({"crop": (1, 2, 0, 3)}, "crop must be"),
    ({"crop": (-1, 2, 3, 3)}, "crop must be"),
    ({"crop": (0.5, 0.5, 0.6, 0.1)}, "crop must be"),
    ({"crop": (True, 0, 1, 1)}, "crop must be"),
    ({"crop": "middle"}, "crop must be"),
    ({"mode": "BGR"}, "mode must be"),
    ({"backend": "opencv"}, "backend must be"),
    ({"fast": 1}, "fast must be"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_wrong_arguments(given: dict[str, Any], told: str, photo: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        load_image(jpeg(photo), **given)


def test_a_decoder_that_is_missing(photo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sampler import decoding

    monkeypatch.setattr(decoding, "is_there", lambda package: False)
    with pytest.raises(ImportError, match="pip install simplejpeg"):
        load_image(jpeg(photo), backend="simplejpeg")
    assert load_image(jpeg(photo)).shape == photo.shape


def crop_of(path: str) -> Any:
    from workers import current_rng

    rng = current_rng()
    box = random_resized_crop(rng, *image_size(path))
    return random_flip(rng, load_image(path, (16, 16), box))


def test_workers_load_the_same_crops(photo: Any, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.jpg") for number in range(6)]
    for number, path in enumerate(paths):
        Path(path).write_bytes(jpeg(np.roll(photo, 10 * number, 1)))
    found = []
    for nb_workers, executor in ((0, "process"), (2, "process"), (2, "thread")):
        with prefetch(paths, nb_workers, executor=executor, seed=1).map(crop_of).batch(3) as batches:
            found.append(np.concatenate([*batches, *batches]))
    assert found[0].shape == (12, 16, 16, 3)
    assert all(np.array_equal(each, found[0]) for each in found)
    assert len({each.tobytes() for each in found[0]}) == 12


def test_random_resized_crops_are_within_the_image() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for height, width in ((480, 640), (10, 500), (500, 10), (1, 1)):
        for _ in range(500):
            top, left, high, wide = random_resized_crop(rng, height, width)
            assert 0 <= top <= top + high <= height
            assert 0 <= left <= left + wide <= width
            assert high >= 1
            assert wide >= 1
            if (height, width) == (480, 640):
                shares.append(high * wide / height / width)
                assert 0.7 < wide / high < 1.4
    assert min(shares) < 0.1
    assert max(shares) > 0.9
