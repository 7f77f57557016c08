"""``SequenceArray``: a sequence of samples from arrays of equal length, such as images and their labels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workers.arguments import explains_arguments
from workers.batch.exact import exact_array
from workers.batch.strings import Strings, array_of, shared
from workers.checks import check_int, short
from workers.job import seeding
from workers.job.generators import Generators

from .base import Sequence
from .clock import defines_hooks
from .display import DisplayedFact, named
from .epochs import seed_of_orders
from .gather import gather
from .order import last_epochs
from .subsample import SequencePart
from .tables import check_table


class SequenceArray(Sequence[dict[str, Any]]):
    """A sequence of samples from arrays of equal length: sample ``i`` is a dict with item ``i`` of each array.

    Args:
        arrays: {name: array or list}, all of the same length. A list of ``bytes`` or ``str`` becomes an array of
            objects if numpy's string dtypes would drop trailing zeros or pad the strings to many times their size.
            Masked arrays keep their masks.
        sampler: None to deliver all samples in the order of the arrays; integers, the positions of the samples to
            deliver; or a function, e.g. ``np.random.permutation``, that gets the number of samples and returns such
            positions. It is called once for each epoch, with random generators seeded by (seed, epoch).
        seed: the seed of all random draws; None to draw a seed once, which is kept in ``seed`` and logged.

    >>> for batch in SequenceArray({"x": np.arange(4)}).batch(3):
    ...     print(batch["x"])
    [0 1 2]
    [3]

    Source: ``trw.train.SequenceArray``.
    """

    _item_names = "sample", "samples"

    @explains_arguments
    def __init__(self, arrays: Mapping[str, Any], sampler: Any = None, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        check_table("arrays", arrays)
        if not isinstance(arrays, Mapping) or not arrays:
            raise TypeError(f"arrays must be a dict of at least one array, not {arrays!r:.200}")
        self.arrays = {name: _as_array(name, array) for name, array in arrays.items()}
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays must be of equal lengths, not {lengths}")
        self.nb_samples = next(iter(lengths.values()))
        self.sampler = sampler
        if callable(sampler):
            self.seed  # noqa: B018  # a missing seed is drawn now, so that workers do not each draw their own
        self._orders: dict[tuple[int, int], Any] = {}  # {(epoch, seed): (positions, sampler)} of two epochs at most

    @property
    def sampler(self) -> Any:
        """The order of the samples: None, positions, or a function. A new one takes effect in the next epoch."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Any) -> None:
        self._sampler = sampler if sampler is None or callable(sampler) else self._check_positions(sampler)

    def _check_positions(self, positions: Any) -> np.ndarray[Any, Any]:
        if np.ma.is_masked(positions):
            raise ValueError("sampler must not have masked positions: remove them with .compressed()")
        checked = np.asarray(positions)
        if checked.ndim != 1 or not (checked.size == 0 or np.issubdtype(checked.dtype, np.integer)):
            raise TypeError(f"sampler must be None, integer positions or a function, not {positions!r:.200}")
        if checked.size and not (-self.nb_samples <= checked.min() and checked.max() < self.nb_samples):
            raise ValueError(
                f"sampler has positions {checked.min()} to {checked.max()}, allowed are 0 to {self.nb_samples - 1}"
            )
        return checked.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}}

    def _identity(self) -> list[Any]:
        return [*super()._identity(), self.nb_samples, sorted(map(str, self.arrays))]

    def _positions(self) -> Any:
        if not callable(self.sampler):
            return self.sampler
        place = self.epoch, seed_of_orders(self, self._plan())
        positions, sampler = self._orders.get(place, (None, None))
        # All jobs of an epoch use the order from its start. Workers receive a new sampler only between epochs.
        may_be_new = seeding.current_job() is None or seeding.is_in_worker_process()
        if sampler is None or (sampler is not self.sampler and may_be_new):
            epoch, seed = place
            job, sampler = seeding.Job(epoch, seeding.EPOCH_START), self.sampler
            stream = seeding.Stream(seed, Generators(lambda: [("sampler", sampler)]), (self,))
            drawn = seeding.run_job(stream, job, lambda: sampler(self.nb_samples))
            positions = self._check_positions(drawn)
            self._orders = {**last_epochs(self._orders, epoch), place: (positions, sampler)}
        return positions

    @property
    def _changes_order(self) -> bool:  # type: ignore[override]
        return callable(self.sampler)

    def _is_length_at_hand(self) -> bool:
        known = [sampler for (epoch, _), (_, sampler) in self._orders.items() if epoch == self.epoch]
        return not callable(self.sampler) or any(sampler is self.sampler for sampler in known)

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("of", short(list(self.arrays)))

    def __len__(self) -> int:
        positions = self._positions()
        return self.nb_samples if positions is None else len(positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: part[0] for name, part in self.take(slice(index, index + 1)).items()}

    def take(self, number: Any) -> Any:
        """Return the first ``number`` samples as a sequence: see :meth:`Sequence.take`.

        If ``number`` is a slice or an array of places in the sampler's order, return the samples there instead, as
        {name: new array}.
        """
        is_rows = isinstance(number, slice) or (np.ndim(number) == 1 and np.asarray(number).dtype.kind in "iu")
        if not is_rows:
            if np.ndim(number):
                raise TypeError(f"number must be an integer, or an array of places, not {short(number)}")
            return super().take(number)
        positions = self._positions()
        at = number if positions is None else positions[number]
        return {name: gather(array, at) for name, array in self.arrays.items()}

    @property
    def _makes_fresh_batches(self) -> bool:  # type: ignore[override]
        cls = type(self)
        return cls.__getitem__ is SequenceArray.__getitem__ and cls.take is SequenceArray.take

    def _share(self) -> None:
        for array in self.arrays.values():
            if isinstance(array, Strings):
                array.share()
        self.arrays = {name: shared(array) for name, array in self.arrays.items()}

    def _samples_at(self, places: Any) -> Any:
        if type(self).__getitem__ is not SequenceArray.__getitem__:
            return None  # a subclass makes its own samples
        first, number = (int(places[0]), len(places)) if len(places) else (0, 0)
        is_run = number < 2 or bool((np.diff(places) == 1).all())
        return self.take(slice(first, first + number) if is_run else places)

    def subsample(self, nb_samples: int) -> Sequence[dict[str, Any]]:
        """Return a sequence of ``nb_samples`` of the sampler's samples, chosen once and at random (by ``seed``).

        If ``sampler`` is a function, each epoch has the chosen samples in the order that the function returns. If the
        function returns some sample twice, places in its result are chosen, so the samples may differ from epoch to
        epoch. The hooks and ``__getitem__`` of a subclass still make the samples.

        Raises:
            ValueError: the sampler has fewer than ``nb_samples`` samples.
        """
        if self._makes_samples():
            return SequencePart(self._order_of().subsample(nb_samples), self._in_order())
        nb_samples = check_int("nb_samples", nb_samples, 1)
        positions = self._positions()
        drawn = np.arange(self.nb_samples) if positions is None else positions
        if nb_samples > len(drawn):
            raise ValueError(f"nb_samples must be at most the {len(drawn)} samples there are, not {nb_samples}")
        if self._plan().seeds and not callable(self.sampler):
            return self._at(drawn[_choice(self.seed, len(drawn), nb_samples)], None)
        return self._made_of(self.arrays, _Chosen(self.sampler, nb_samples, self.epoch))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence[dict[str, Any]]:
        """Return a sequence of the samples whose value in array ``uids_name`` is in ``uids``, in the order of ``uids``.

        Args:
            new_sampler: the order of the selected samples, like ``sampler``; None for the order of ``uids``.
        """
        of_all = self._uids(uids_name)
        if self._makes_samples():
            return SequencePart(self._order_of(uid=of_all).subsample_uids(uids, "uid", new_sampler), self._in_order())
        where: dict[Any, list[int]] = {}
        for at, uid in enumerate(of_all.tolist()):
            where.setdefault(uid, []).append(at)
        uids = uids.compressed() if isinstance(uids, np.ma.MaskedArray) else uids
        wanted: Iterable[Any] = uids.tolist() if isinstance(uids, np.ndarray) else uids
        kept = np.array([at for uid in dict.fromkeys(wanted) for at in where.get(uid, ())], np.int64)
        if isinstance(self.sampler, _Chosen):  # keep only the samples that an earlier subsample() has chosen
            if new_sampler is None and not self._plan().seeds:
                return self._made_of(self.arrays, _OfChosen(self.sampler, kept))
            kept = kept[np.isin(kept, self._positions() % self.nb_samples)]
        return self._at(kept, new_sampler)

    def _uids(self, uids_name: str) -> Any:
        if uids_name not in self.arrays:
            raise ValueError(f"uids_name must be one of {sorted(self.arrays)}, not {uids_name!r}")
        return self.arrays[uids_name]

    def _makes_samples(self) -> bool:
        """Return True if a subclass makes its own samples: it overrides ``__getitem__`` or ``take``, or has hooks."""
        cls = type(self)
        is_ours = cls.__getitem__ is SequenceArray.__getitem__ and cls.take is SequenceArray.take
        return not is_ours or defines_hooks(self)

    def _order_of(self, **others: Any) -> SequenceArray:
        """Return a SequenceArray of positions, not samples: {"place": [0, 1, ...], **others}, with the same sampler."""
        return self._made_of({"place": np.arange(self.nb_samples), **others}, self.sampler)

    def _in_order(self) -> SequenceArray:
        """Return a copy without a sampler, which has the order of the arrays and counts its own epochs."""
        copied = copy.copy(self)
        copied.sampler = None
        for name in self._not_copied:
            copied.__dict__.pop(name, None)
        return copied

    def _at(self, positions: Any, sampler: Any) -> SequenceArray:
        return self._made_of({name: gather(array, positions) for name, array in self.arrays.items()}, sampler)

    def _made_of(self, arrays: dict[str, Any], sampler: Any) -> SequenceArray:
        """Return a SequenceArray of ``arrays`` in the order of ``sampler``, with the seed of this sequence.

        The seed counts as given, i.e. takes precedence over the chain's seed, only if it was given to this sequence.
        """
        given = self._plan().seeds
        made = SequenceArray.__new__(SequenceArray)
        made.__dict__["_sequence_seed"] = self.seed
        made.__init__(arrays, sampler, seed=given[0] if given else None)  # type: ignore[misc]
        return made


def _choice(seed: int, length: int, count: int) -> Any:
    """Return a sorted array of ``count`` different integers from 0 to ``length`` - 1, drawn by ``seed``."""
    return np.sort(np.random.default_rng(seed).choice(length, count, replace=False))


class _Chosen:
    """A sampler, i.e. a function that returns an epoch's order, that keeps a random choice of another one's order.

    The choice is made once for each seed. If the other sampler is a function that returns no sample twice, the chosen
    samples are kept in each epoch; otherwise, the chosen places in the other sampler's order.

    Args:
        sampler: the other sampler, as for :class:`SequenceArray`.
        count: how many samples or places to choose.
        epoch: the epoch from whose order the choice is made, as the other sampler gives it.
    """

    def __init__(self, sampler: Any, count: int, epoch: int) -> None:
        self.sampler, self.count, self.epoch = sampler, count, epoch
        self._chosen: dict[int, tuple[Any, bool]] = {}  # {seed: (samples or places, True for samples)}

    def __call__(self, nb_samples: int) -> Any:
        stream = seeding.current_stream()
        assert stream is not None
        drawn = self._drawn(nb_samples)
        chosen, is_of_samples = self._chosen.get(stream.seed) or self._choose(stream.seed, nb_samples)
        if is_of_samples:
            return drawn[np.isin(drawn % nb_samples, chosen % nb_samples)]
        return drawn[chosen[chosen < len(drawn)]]

    def _choose(self, seed: int, nb_samples: int) -> tuple[Any, bool]:
        if callable(self.sampler):
            stream = seeding.Stream(seed, Generators(lambda: [("sampler", self.sampler)]))
            job = seeding.Job(self.epoch, seeding.EPOCH_START)
            drawn: Any = seeding.run_job(stream, job, lambda: self._drawn(nb_samples))
        else:
            drawn = self._drawn(nb_samples)
        chosen = _choice(seed, len(drawn), self.count)
        is_of_samples = callable(self.sampler) and len(np.unique(drawn)) == len(drawn)
        self._chosen[seed] = found = (drawn[chosen] if is_of_samples else chosen), is_of_samples
        return found

    def _drawn(self, nb_samples: int) -> Any:
        if callable(self.sampler):
            return np.asarray(self.sampler(nb_samples))
        return np.arange(nb_samples) if self.sampler is None else self.sampler


class _OfChosen:
    """A sampler, i.e. a function that returns an epoch's order: those ``places`` that ``sampler`` draws as well.

    ``places`` are positions in the arrays, and keep their order. ``sampler`` is another sampler.
    """

    def __init__(self, sampler: _Chosen, places: Any) -> None:
        self.sampler, self.places = sampler, places

    def __call__(self, nb_samples: int) -> Any:
        return self.places[np.isin(self.places, self.sampler(nb_samples) % nb_samples)]


def _as_array(name: str, values: Any) -> Any:
    if (isinstance(values, np.ndarray) and values.ndim) or isinstance(values, Strings):
        return values
    if Strings.suit(values) or Strings.must_hold(values):
        return Strings(values)
    if hasattr(values, "toarray"):
        check_table(f"arrays[{name!r}]", values)  # refuses sparse matrices; tables become arrays of two axes
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or not getattr(values, "ndim", 1):
        raise TypeError(f"arrays[{name!r}] must be an array or a list, not {short(values)} ({type(values).__name__})")
    try:
        return exact_array(values, f"arrays[{name!r}]")
    except ValueError:  # items of different shapes become an array of objects
        return array_of(values)
