"""TFRecordSequence: the same batches as a Sequence; through workers, from any place on, in fit."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from shards import parse_all, write

from sampler import TFRecordDatasetSampler, TFRecordSequence, write_class_shards
from workers import StateError, current_rng, prefetch

tf: Any = pytest.importorskip("tensorflow")
OPTIONS: dict[str, Any] = {"batch_deserialization_fn": parse_all, "batch_size": 8, "seed": 1}


@pytest.fixture(scope="module", autouse=True)
def _tensorflow_is_started() -> None:
    """So that its descriptors are there before the police look."""
    list(tf.data.Dataset.range(3).interleave(tf.data.Dataset.range, num_parallel_calls=2))
    gc.freeze()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "s", [7, 9, 11, 6, 8, 5], 2)


def augment(batch: Any) -> Any:
    x, y = batch
    return x + current_rng().integers(0, 1000, x.shape), y


def told(batches: Any) -> list[bytes]:
    return [x.tobytes() + y.tobytes() for x, y in batches]


@pytest.mark.parametrize(("shards_per_cycle", "length"), [(None, 11), (5, 10)])
def test_the_same_as_the_data_set(folder: Path, shards_per_cycle: int | None, length: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("sampler.tfrecord.rows._MAX_READ", 3)
    options = {**OPTIONS, "shards_per_cycle": shards_per_cycle}
    expected = told(TFRecordDatasetSampler(folder, num_repeat=3, **options).as_numpy_iterator())
    with TFRecordSequence(folder, **options) as sequence:
        assert len(sequence) == len(expected) // 3 == length
        assert [each for _ in range(3) for each in told(sequence)] == expected
        for place in (17, 5, 16, 29, 10, 11):  # in any order
            sequence.epoch = place // len(sequence)
            x, y = sequence[place % len(sequence)]
            assert x.tobytes() + y.tobytes() == expected[place]
            assert x.flags.writeable


def test_through_workers(folder: Path) -> None:
    """The same numbers, in each epoch, for any number of them; also after a break."""

    def passes(nb_workers: int) -> list[list[bytes]]:
        with TFRecordSequence(folder, **OPTIONS).map(augment, nb_workers=nb_workers) as batches:
            assert len(batches) == 11
            first = told(batches)
            for _ in batches:
                break
            return [first, told(batches), told(batches), told([batches[3]])]

    here = passes(0)
    assert [len(each) for each in here] == [11, 11, 11, 1]
    assert len({each for some in here for each in some}) == 34
    assert passes(2) == here


def test_in_fit(folder: Path) -> None:
    """Every batch of each epoch once, in the order of the sequence, whatever Keras shuffles."""
    import keras

    class Told(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[bytes] = []

        def train_step(self, data: Any) -> Any:
            self.seen += told([[part.numpy() for part in data]])
            return {"loss": tf.constant(0.0)}

    expected = told(TFRecordDatasetSampler(folder, num_repeat=3, **OPTIONS).as_numpy_iterator())
    model = Told()
    model.compile(run_eagerly=True)
    with TFRecordSequence(folder, **OPTIONS) as sequence:
        model.fit(sequence, epochs=3, verbose=0)
        assert model.seen == expected
        assert sequence.epoch == 3
    with TFRecordSequence(folder, **OPTIONS).map(augment, nb_workers=0) as batches:
        augmented = [each for _ in range(2) for each in told(batches)]
    model.seen = []
    # Keras holds what it was given, so it has to be closed too.
    with TFRecordSequence(folder, **OPTIONS) as sequence, sequence.map(augment, nb_workers=2) as batches:
        model.fit(batches, epochs=2, verbose=0)
    assert model.seen == augmented


def test_going_on(folder: Path) -> None:
    """At any step, also by another number of workers; not with other shards."""
    with TFRecordSequence(folder, **OPTIONS) as sequence, sequence.map(augment, nb_workers=0) as batches:
        states, delivered = [], []
        for _ in range(2):
            for batch in batches:
                delivered += told([batch])
                states.append(batches.state_dict())
    with TFRecordSequence(folder, **OPTIONS) as sequence, sequence.map(augment, nb_workers=2) as batches:
        for step in (3, 15, 9):
            batches.load_state_dict(states[step - 1])
            rest = [each for _ in range(step // len(batches), 2) for each in told(batches)]
            assert rest == delivered[step:]
    other = TFRecordSequence(folder, **{**OPTIONS, "batch_size": 6})
    with pytest.raises(StateError, match="of a TFRecordSequence of other arguments or data"):
        other.load_state_dict(states[0])


def test_ranks_of_other_lengths(tmp_path: Path) -> None:
    """All have as many steps; each epoch begins at its beginning."""
    folder = write(tmp_path / "shards", [4, 9, 5, 9, 4, 9], size=2)
    options = {**OPTIONS, "batch_size": 4}
    found = []
    for rank in range(2):
        with TFRecordSequence(folder, **options, shard=(rank, 2)) as sequence:
            passes = [told(sequence) for _ in range(2)]
            sequence.epoch = 1
            assert told(sequence) == passes[1]
            found.append((len(sequence), *map(len, passes)))
    assert found[0] == found[1]
    data_set = TFRecordDatasetSampler(folder, **options, num_repeat=1, shard=(1, 2))
    assert found[0][0] == found[0][1] < len(data_set)


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_an_error_comes_at_its_place(folder: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches are read at once: all before it are delivered first."""
    monkeypatch.setattr("sampler.tfrecord.samplers._MAX_AT_ONCE", at_once)
    monkeypatch.setattr("sampler.tfrecord.rows._MAX_READ", 3)
    expected = told(TFRecordDatasetSampler(folder, num_repeat=1, **OPTIONS).as_numpy_iterator())
    with TFRecordSequence(folder, **OPTIONS) as sequence:
        assert told(sequence) == expected
        sequence.epoch = 0
        path = folder / "0003.tfrec"
        good = path.read_bytes()
        path.write_bytes(good[:-8] + b"?" + good[-7:])
        got: list[bytes] = []
        with pytest.raises(tf.errors.InvalidArgumentError, match="corrupt at record 11"):
            got.extend(each for batch in sequence for each in told([batch]))
        assert got
        assert got == expected[: len(got)]
        path.write_bytes(good)
        sequence.epoch = 0
        assert told(sequence) == expected
    assert sequence._at_once == at_once


def test_strings_are_read_one_batch_at_a_time(folder: Path) -> None:
    """They are no arrays of bytes, so they cannot be read together."""

    def parse(records: Any) -> Any:
        return records, tf.strings.length(records)

    options = {**OPTIONS, "batch_deserialization_fn": parse}
    expected = list(TFRecordDatasetSampler(folder, num_repeat=1, **options).as_numpy_iterator())
    with TFRecordSequence(folder, **options) as sequence:
        for (x, y), (expected_x, expected_y) in zip(sequence, expected, strict=True):
            assert x.tolist() == expected_x.tolist()
            assert y.tolist() == expected_y.tolist()


RECORDS = [b"A" * (number % 5) + b"\0" * (number % 3) for number in range(24)]


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_records_that_end_in_zeros(tmp_path: Path, nb_workers: int) -> None:
    """Records are bytes, each of its own length: as they are written, one by one, stacked, and by the sampler."""
    write_class_shards(RECORDS, [number % 4 for number in range(24)], tmp_path, lambda example, _: example)
    paths = sorted(map(str, tmp_path.glob("*.tfrec")))
    raw = tf.data.TFRecordDataset(paths)
    written = list(raw.as_numpy_iterator())
    assert sorted(written) == sorted(RECORDS)
    with prefetch(raw, nb_workers) as records:
        assert [record.item() for record in records] == written
    with prefetch(raw, nb_workers, batch_size=8) as batches:
        assert [each for batch in batches for each in batch.tolist()] == written

    def parse(records: Any) -> Any:
        return records, tf.strings.length(records)

    for name in ("deserialization_fn", "batch_deserialization_fn"):
        with TFRecordSequence(tmp_path, batch_size=8, seed=1, **{name: parse}) as sequence:  # type: ignore[arg-type]
            batches = list(sequence.map(tuple, nb_workers=nb_workers))
        read = [(each, length) for x, y in batches for each, length in zip(x.tolist(), y.tolist(), strict=True)]
        assert sorted(read) == sorted((each, len(each)) for each in written)


def test_a_corrupt_shard(folder: Path) -> None:
    """Stops the pass with its name; the batches before it are there."""
    path = folder / "0003.tfrec"
    good = path.read_bytes()
    with TFRecordSequence(folder, **OPTIONS) as sequence, sequence.map(augment, nb_workers=1) as batches:
        path.write_bytes(good[:-8] + b"?" + good[-7:])
        for _ in range(2):
            with pytest.raises(tf.errors.InvalidArgumentError, match=f"{path} is cut short or corrupt at record 11"):
                list(batches)
        path.write_bytes(good)
        assert len(list(batches)) == 11
