"""``workers.check``: each finding, by a sequence that has the fault."""

from __future__ import annotations

from typing import Any

import checked
import numpy as np
import pytest

import workers


def errors(source: Any, **options: Any) -> list[Any]:
    report = workers.check(source, **options)
    found = [each for each in report.findings if each.level == "error"]
    assert report.ok == (not found)
    assert report.findings[: len(found)] == tuple(found)  # the worst first
    return found


def only_error(source: Any, **options: Any) -> Any:
    (found,) = errors(source, **options)
    return found


def fact(report: Any, kind: str) -> str:
    (found,) = report.of_kind(kind)
    return str(found.text)


def test_what_cannot_be_sent() -> None:
    """Where it is, and the recipe; the rest is checked without workers."""
    report = workers.check(checked.Lock())
    assert not report.ok
    (found,) = report.of_kind("cannot be sent")
    assert ".parts['lock']" in found.text
    assert "in Lock, def __getstate__(self)" in found.text
    assert report.of_kind("shapes")
    assert not report.of_kind("first batch")


def test_a_generator_can_be_read_only_once() -> None:
    items = (x for x in range(3))
    with pytest.raises(workers.StateError, match=r"generator is an iterator, which cannot begin again.*give a factory"):
        workers.check(items)
    assert list(items) == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "function", "uses"),
    [
        (checked.ByUrandom, "ByUrandom.noise (checked.py, line", "urandom"),
        (checked.BySystemRandom, "ByS", "SystemRandom"),
        (checked.ByDefaultRng, "ByD", "default_rng"),
    ],
)
def test_draws_that_are_not_seeded(kind: Any, function: str, uses: str) -> None:
    found = only_error(kind())
    assert found.kind == "not seeded"
    assert found.text.startswith("Batch 0 differs each time it is computed in the program, with the same seed: batch")
    assert f"The function is {function}" in found.text
    assert found.instead.startswith(f"It uses {uses}: ")


@pytest.mark.parametrize("word", ["batch", "rebatch"])
def test_an_unseeded_function_of_a_chain(word: str) -> None:
    chain = workers.SequenceArray({"x": np.arange(40)}, seed=1).map(len).map([float, np.array, checked.noisy])
    found = only_error(chain.batch(4) if word == "batch" else chain.batch(3).rebatch(4))
    assert found.kind == "not seeded"
    assert "The function is noisy (checked.py, line" in found.text


def test_jobs_that_count() -> None:
    found = only_error(checked.Counting())
    assert found.kind == "not seeded"
    assert "batch is 1 at first, then 9. The function is Counting.batch" in found.text
    assert "If it counts calls" in found.instead


def test_a_source_that_yields_other_items_each_time() -> None:
    found = only_error(checked.UnseededItems())
    assert found.kind == "not seeded"
    assert "The source itself yields other items" in found.text


def test_batches_that_depend_on_the_process() -> None:
    found = only_error(checked.ByPid())
    assert found.kind == "differs"
    assert "The function is ByPid.batch (checked.py, line" in found.text
    assert "It uses getpid: do not let" in found.instead


def test_items_that_come_one_by_one() -> None:
    found = only_error(workers.prefetch([0, 1], 0).map(checked.pids), num_batches=2)
    assert "The function is pids (checked.py, line" in found.text


def test_workers_of_a_front_end_are_not_used() -> None:
    """They stay as they are, and do not compute what the program should."""
    with checked.ByPid().prefetch(2) as batches:
        list(batches)
        pids = [each.pid for each in batches.report().workers]
        assert only_error(batches, nb_workers=1).kind == "differs"
        assert [each.pid for each in batches.report().workers] == pids


@pytest.mark.parametrize("is_class", [False, True])
def test_a_global_that_the_program_has_changed(is_class: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "SCALE", 2.0)
    numbers = workers.prefetch(list(range(1, 10)), 0).map(checked.scaled)
    found = only_error(checked.ByGlobal() if is_class else numbers)
    assert found.kind == "differs"
    assert "This setting differs: checked.SCALE (2.0 in the program, 1.0 in a worker)." in found.text
    assert found.instead.startswith("Workers import your modules anew")


def test_the_order_of_a_set() -> None:
    """It may be the same by chance, but not in 8 batches."""
    found = only_error(checked.BySet())
    assert found.kind == "differs"
    assert "BySet.batch" in found.text
    assert "PYTHONHASHSEED" in found.instead


def test_a_setting_of_numpy_is_passed_on() -> None:
    before = np.seterr(divide="ignore")
    try:
        assert errors(checked.Ten()) == []
    finally:
        np.seterr(**before)


def test_jobs_that_write_into_the_data() -> None:
    """In workers, the data is read-only."""
    source = checked.Writing()
    before = source.data.copy()
    fails, writes = sorted(errors(source), key=lambda each: each.kind)
    assert (fails.kind, writes.kind) == ("fails", "writes into data")
    assert "in a worker: ValueError: output array is read-only" in fails.text
    assert "Jobs change Writing.data in place" in writes.text
    assert (source.data == before).all()


def test_views_of_the_data() -> None:
    report = workers.check(checked.View())
    assert report.ok
    assert fact(report, "view").startswith("Batches are views of View.data.")
    assert not workers.check(checked.Ten()).of_kind("view")


def test_shapes_that_vary() -> None:
    report = workers.check(checked.Varying(), num_batches=4)
    warning, shapes = report.of_kind("shapes")
    assert (warning.level, shapes.level) == ("warning", "fact")
    assert warning.text == "The dtype of batch['x'] varies from batch to batch: float32, float64."
    assert shapes.text == (
        "batch['x']: float64 (20 to 22, 3) or float32 (21 to 23, 3), batch['y']: int8 (4, 1 to 4), "
        "batch['odd']: str (in 2 of 4 batches)."
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            checked.Failing,
            "Batch 2 raises an error in the program and in a worker: IndexError: list index out",
        ),
        (checked.FailingInWorkers, "Batch 0 raises an error in a worker: KeyError: "),
        (checked.Dying, "Batch 0 raises an error in a worker: WorkerDiedError: "),
    ],
)
def test_jobs_that_fail(kind: Any, text: str) -> None:
    found = only_error(kind())
    assert found.kind == "fails"
    assert found.text.startswith(text)


def test_files_and_threads_that_stay_open() -> None:
    (found,) = workers.check(checked.LeavingFiles()).of_kind("opens")
    assert found.level == "warning"
    assert found.text.startswith(f"Each job leaves a file open, such as {checked.__file__}")
    source = checked.OpeningOnce()
    (found,) = workers.check(source, nb_workers=1).of_kind("opens")
    assert found.level == "fact"
    assert found.text == f"Jobs of a worker open 1 file ({checked.__file__}) and 1 thread, and keep them."
    assert source.file is None
    assert fact(workers.check(checked.Ten()), "opens").startswith("Jobs leave no file")


def test_how_many_workers_a_step_needs() -> None:
    report = workers.check(checked.Waiting(), step_ms=8, num_batches=4)
    assert report.of_kind("workers")[0].level == "fact"  # it waits, so cores do not matter
    assert " would keep steps of 8 ms fed: a job takes " in fact(report, "workers")
    assert int(fact(report, "workers").split()[0]) >= 3
    assert "Stages: source" in fact(report, "time")
    assert "of memory of its own, 2 workers" in fact(report, "memory")
    assert "in which 2 workers start; that of a later epoch after" in fact(report, "first batch")
    assert not workers.check(checked.Ten(), num_batches=2).of_kind("workers")


def test_wrong_arguments() -> None:
    for arguments, error, text in [
        ({"nb_workers": 0}, ValueError, "nb_workers must be an integer >= 1"),
        ({"num_batches": 1}, ValueError, "num_batches must be an integer >= 2"),
        ({"step_ms": 0}, ValueError, "step_ms must be a number of milliseconds > 0"),
        ({"step_ms": "1"}, TypeError, "step_ms must be"),
        ({"num_workers": 2}, TypeError, "write nb_workers="),
    ]:
        with pytest.raises(error, match=text):
            workers.check([1, 2], **arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="source must have __len__ and __getitem__"):
        workers.check(3)
