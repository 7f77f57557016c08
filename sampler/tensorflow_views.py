"""Make the views of an augmenter in TensorFlow, with stateless operations, so that they can run in a ``tf.function``.

The functions do with float32 tensors, with values from 0 to 255, what those of ``transforms`` do with uint8 arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augmenters import View


def views_of(images: Any, seed: Any, size: tuple[int, int], strength: float, views: tuple[View, ...]) -> Any:
    """Return a uint8 tensor (n, height, width, 3) for each of ``views``, made of ``images`` (n, height, width, 3)."""
    import tensorflow as tf

    def of_one(arguments: Any) -> Any:
        image, seeds = arguments
        image = tf.cast(image, tf.float32)
        return tuple(_view(tf, image, seeds[at], size, strength, view) for at, view in enumerate(views))

    images, seed = tf.convert_to_tensor(images), tf.cast(seed, tf.int64)
    number = tf.shape(images)[0]
    seeds = tf.reshape(tf.random.split(seed, number * len(views)), (number, len(views), 2))
    kinds = tuple(tf.TensorSpec((*size, 3), tf.uint8) for _ in views)
    return tf.map_fn(of_one, (images, seeds), fn_output_signature=kinds)


def _view(tf: Any, image: Any, seed: Any, size: tuple[int, int], strength: float, view: View) -> Any:
    crop, flip, chances, jitter, order, blur = tf.unstack(tf.random.split(seed, 6))
    whole = tf.zeros((1, 1, 4))
    start, length, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image), whole, crop, 0.0, (3 / 4, 4 / 3), (0.08, 1.0), 10, use_image_if_no_bounding_boxes=True
    )
    image = tf.ensure_shape(tf.image.resize(tf.slice(image, start, length), size), (*size, 3))
    image = tf.image.stateless_random_flip_left_right(image, flip)
    chance = tf.random.stateless_uniform((4,), chances)
    image = tf.cond(chance[0] < view.jitter, lambda: _jittered(tf, image, jitter, order, strength), lambda: image)
    grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    image = tf.where(chance[1] < view.grey, grey, image)
    sigma = tf.random.stateless_uniform((), blur, 0.1, 2.0)
    blurred = (
        image if not view.blur else tf.cond(chance[2] < view.blur, lambda: _blurred(tf, image, sigma), lambda: image)
    )
    solarized = tf.where(blurred < 128, blurred, 255 - blurred)
    return tf.cast(tf.round(tf.where(chance[3] < view.solarize, solarized, blurred)), tf.uint8)


def _jittered(tf: Any, image: Any, seed: Any, order: Any, strength: float) -> Any:
    """Return ``image`` with other brightness, contrast, saturation and hue, changed in a random order."""
    draws = tf.random.stateless_uniform((4,), seed, -1.0, 1.0)
    factors = tf.maximum(0.0, 1 + 0.8 * strength * draws[:3])
    turn = min(0.5, 0.2 * strength) * draws[3]

    def blended(image: Any, other: Any, factor: Any) -> Any:
        return tf.clip_by_value(factor * image + (1 - factor) * other, 0, 255)

    changes = (
        lambda image: blended(image, 0.0, factors[0]),
        lambda image: blended(image, tf.reduce_mean(tf.image.rgb_to_grayscale(image)), factors[1]),
        lambda image: blended(image, tf.image.rgb_to_grayscale(image), factors[2]),
        lambda image: tf.image.adjust_hue(image / 255, turn) * 255,
    )
    numbers = tf.argsort(tf.random.stateless_uniform((len(changes),), order))
    for at in range(len(changes)):
        image = tf.switch_case(numbers[at], [lambda each=each, image=image: each(image) for each in changes])
    return image


def _blurred(tf: Any, image: Any, sigma: Any) -> Any:
    """Return ``image`` blurred with a deviation of ``sigma`` pixels, by a kernel a tenth of its height wide."""
    size = max(1, image.shape[0] // 10) | 1
    half = size // 2
    weights = tf.exp(-tf.square(tf.range(-half, half + 1, dtype=tf.float32)) / (2 * sigma**2))
    kernel = tf.tile((weights / tf.reduce_sum(weights))[:, None, None, None], (1, 1, 3, 1))
    wide = tf.pad(image[None], ((0, 0), (half, half), (half, half), (0, 0)), "REFLECT")
    for each in (kernel, tf.transpose(kernel, (1, 0, 2, 3))):
        wide = tf.nn.depthwise_conv2d(wide, each, (1, 1, 1, 1), "VALID")
    return wide[0]
