"""``SequenceWeighted``: the samples of a sequence, drawn in each epoch in proportion to their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.batch.strings import shared
from workers.checks import check_bool, check_int, short
from workers.job.context import current_job
from workers.job.permutation import permutation
from workers.job.stream import hashed

from .chosen import ChosenPlaces, Given, SequenceChosen, digest
from .clock import asking
from .derived import SequenceDerived, check_one_each, source_length
from .display import DisplayedFact, named
from .epochs import seed_of_orders
from .labels import label_array

_OF_WEIGHTS = 2  # part of the key of the random draws: other methods, such as shuffle, have other numbers
_BALANCED = "balanced"


class Systematic(NamedTuple):
    """The draws of one epoch, with replacement: each sample comes as often as its share of them, rounded up or down.

    Draw ``k`` gets the sample at the fraction ``(P(k) + u) / number`` of the cumulated weights. The permutation ``P``
    and the number ``u``, between 0 and 1, are random, and drawn once an epoch.

    Source: Madow, "On the theory of systematic sampling" (1949).
    """

    cumulated: NDArray[np.float64]
    number: int
    seed: int
    epoch: int

    def __len__(self) -> int:
        return self.number

    def take(self, jobs: Any) -> Any:
        """Return the place of the sample that each of the draws ``jobs`` gets, as an int64 array."""
        key = self.seed, self.epoch, _OF_WEIGHTS
        start = (hashed(self.seed, repr(key).encode())[0] >> 11) * 2.0**-53
        places = permutation(self.number)(np.asarray(jobs, np.uint64), key)
        total = self.cumulated[-1]
        wanted = np.minimum((places + start) / self.number * total, np.nextafter(total, 0))
        return self.cumulated.searchsorted(wanted, side="right").astype(np.int64, copy=False)

    @property
    def digest(self) -> str:
        """A hash of the weights, by which a loaded state checks that they are the same."""
        return digest(self.cumulated)


class SequenceWeighted(SequenceChosen):
    """Samples of another sequence, drawn by their weights: see :meth:`Sequence.weighted`."""

    _changes_order = True

    def __init__(
        self,
        source_split: Any,
        weights: Any,
        *,
        labels: Any = None,
        num_samples: int | None = None,
        replacement: bool = True,
    ) -> None:
        self.num_samples = None if num_samples is None else check_int("num_samples", num_samples, 1)
        self.replacement = check_bool("replacement", replacement)
        self._is_drawn = callable(weights) or not self.replacement
        self._labels = None
        if labels is not None:
            self._labels = _Labels(label_array("labels", labels, source_split))
        elif isinstance(weights, (str, Mapping)):
            raise TypeError(f"weights={short(weights)} needs labels=..., the label of each sample")
        self._begun: dict[int, _Weights] = {}  # {an epoch that has begun: the weights it began with}, the last two
        self._now = self._checked_weights(weights)
        super().__init__(source_split, "weighted")
        self._check_now(self._now)

    @property
    def weights(self) -> Any:
        """The weights, as they were given. New weights take effect in the next epoch that begins."""
        given = self._now.given
        if isinstance(given, np.ndarray):
            given = given.view()
            given.flags.writeable = False  # a change in place would have no effect
        return given

    @weights.setter
    def weights(self, weights: Any) -> None:
        if callable(weights) and not self._is_drawn:
            raise TypeError("weights that were given as numbers cannot become a function: give that to .weighted()")
        now = self._checked_weights(weights)
        self._check_now(now)
        self._now = now
        self._kept = {place: drawn for place, drawn in self._kept.items() if place[0] in self._begun}

    def _checked_weights(self, weights: Any) -> _Weights:
        values = None if callable(weights) else self._values_of(weights)
        return _Weights(weights, values, "" if values is None else digest(values))

    def _begin_epoch(self, epoch: int) -> None:
        before, now = self._begun.get(epoch), self._now
        if before is not None and not before.is_same(now):  # the epoch begins again
            self._kept = {place: drawn for place, drawn in self._kept.items() if place[0] != epoch}
        self._begun = dict([*self._begun.items(), (epoch, now)][-2:])  # another loop may be in another epoch

    def _weights_of_epoch(self) -> _Weights:
        """Return the weights that the loop's current epoch began with."""
        job, clock = current_job(), asking()
        if job is None:
            clock = clock or self._clock
        if clock is not None and not clock.is_underway:
            return self._now
        epoch = job.epoch if clock is None else clock.epoch  # type: ignore[union-attr]
        return self._begun.get(epoch, self._now)

    def _values_of(self, weights: Any) -> NDArray[np.float64]:
        """Return the cumulated weights of the samples; without replacement, the weights themselves."""
        by_sample = _checked(np.asarray(weights)) if self._labels is None else self._labels.weights(weights)
        return np.cumsum(by_sample) if self.replacement else by_sample

    def _choice(self) -> ChosenPlaces:
        weights = self._weights_of_epoch()
        if not self._is_drawn:
            return self._choice_by(weights.values)
        held = weights.given if callable(weights.given) else None
        return self._drawn(lambda: self._draw(weights), held)  # type: ignore[no-any-return]

    def _draw(self, weights: _Weights) -> ChosenPlaces:
        by_function = weights.values is None
        return self._choice_by(self._values_of(weights.given(self.epoch)) if by_function else weights.values)

    def _choice_by(self, values: Any) -> ChosenPlaces:
        length = source_length(self)
        self._check_number(values, length)
        number = length if self.num_samples is None else self.num_samples
        if not length:
            return Given(np.zeros(0, np.int64))
        seed = seed_of_orders(self, self._plan())
        if self.replacement:
            return Systematic(values, number, seed, self.epoch)
        return Given(_without_replacement(values, number, seed, self.epoch))

    def _check_now(self, weights: _Weights) -> None:
        """Check the number of ``weights``, if it is known now how many there must be."""
        if weights.values is not None and SequenceDerived._is_length_at_hand(self):
            self._check_number(weights.values, source_length(self))

    def _check_number(self, values: NDArray[np.float64], length: int) -> None:
        what = "labels" if self._labels is not None else "weights"
        check_one_each(what, len(values), length, self._item_names[1], self.source_split)
        if self.replacement:
            return
        most, wanted = int(np.count_nonzero(values)), length if self.num_samples is None else self.num_samples
        if wanted > most:
            raise ValueError(
                f"only {most} weights are greater than 0, so {wanted} samples cannot be drawn without replacement: "
                f"give num_samples={most} or fewer"
            )

    def _arguments(self) -> tuple[Any, ...]:
        return self._weights_of_epoch().digest, self.num_samples, self.replacement

    def _share(self) -> None:
        self._now = self._now._replace(values=shared(self._now.values))

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("weights", "by label" if self._labels is not None else "by sample")

    def __getstate__(self) -> dict[str, Any]:
        # Workers need only the cumulated weights; if a function gives the weights, the program draws the samples.
        before = {epoch: each for epoch, each in self._begun.items() if not each.is_same(self._now)}
        sent = {epoch: each.sent() for epoch, each in before.items()}  # usually none
        return {**self.__dict__, "_now": self._now.sent(), "_begun": sent, "_labels": None}


class _Weights(NamedTuple):
    """The weights that the user has ``given``, their ``values`` for the samples, and the ``digest`` of the values.

    In a worker, ``given`` is None unless it is a function. The values are the cumulated weights of the samples; without
    replacement, the weights themselves. They are None if a function gives the weights.
    """

    given: Any
    values: Any
    digest: str

    def is_same(self, other: _Weights) -> bool:
        """Return True if ``other`` was given the same function, or equal numbers."""
        return self.digest == other.digest and (bool(self.digest) or self.given is other.given)

    def sent(self) -> _Weights:
        """Return what workers need of these."""
        return self if callable(self.given) else self._replace(given=None)


class _Labels:
    """The labels of all samples, as an array of the distinct labels, and the number of each sample's label in it."""

    def __init__(self, labels: NDArray[Any]) -> None:
        self.names, self.numbers, self.counts = np.unique(labels, return_inverse=True, return_counts=True)

    def weights(self, by_label: Any) -> NDArray[np.float64]:
        """Return the weight of each sample, given ``by_label``: {label: weight}, or "balanced" for equal shares."""
        if isinstance(by_label, str):
            if by_label != _BALANCED:
                raise ValueError(f'weights must be {{label: weight}}, "balanced" or an array, not {short(by_label)}')
            found = 1.0 / self.counts
        elif isinstance(by_label, Mapping):
            names = self.names.tolist()
            missing = [name for name in names if name not in by_label]
            unknown = [name for name in by_label if name not in set(names)]
            if missing or unknown:
                what = f"lacks {short(missing)}" if missing else f"has {short(unknown)}, which no sample has"
                raise ValueError(f"weights {what}: give one weight for each of the labels {short(names)}")
            found = _checked(np.array([by_label[name] for name in names]))
        else:
            raise TypeError(f'with labels, weights must be {{label: weight}} or "balanced", not {short(by_label)}')
        return np.asarray(found[self.numbers], np.float64)


def _checked(weights: NDArray[Any]) -> NDArray[np.float64]:
    if weights.ndim != 1 or weights.dtype.kind not in "biuf":
        raise TypeError(
            f"weights must be numbers, one for each sample, not of dtype {weights.dtype} and shape {weights.shape}"
        )
    weights = weights.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise ValueError(f"weights must be finite numbers >= 0, but number {wrong[0]} is {weights[wrong[0]]}")
    if not len(weights):
        return weights
    most = weights.max()
    if not most:
        raise ValueError("weights are all 0, so there is nothing to draw")
    scaled: NDArray[np.float64] = np.ldexp(weights, -np.frexp(most)[1])
    return scaled  # at most 1, so that their sum is finite


def _without_replacement(weights: NDArray[np.float64], number: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return ``number`` different places, drawn one by one in proportion to the weights of the places that are left.

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).
    """
    drawn = np.random.Generator(np.random.Philox(key=hashed(seed, repr((epoch, _OF_WEIGHTS)).encode())))
    keys = drawn.standard_exponential(len(weights))
    with np.errstate(divide="ignore"):
        keys /= weights
    first = np.argpartition(keys, number - 1)[:number] if number < len(keys) else np.arange(len(keys))
    return first[np.argsort(keys[first], kind="stable")]
