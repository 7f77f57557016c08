"""A table or a sparse matrix is given where samples are expected: the error says how to get its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sampler import MultiShotMemorySampler, select_examples
from workers import SequenceArray, SequenceMap, prefetch

COLUMNS = {0: np.arange(4), 1: np.arange(4) * 10, 2: np.ones(4)}


class _Frame:
    """Stands for a data frame: its items are columns, here named by integers."""

    columns = tuple(COLUMNS)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, name: int) -> Any:
        return COLUMNS[name]


class _Series:
    """Stands for a pandas Series: its items are found by label."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, label: Any) -> Any:
        return float(list(self.index).index(label))


def stands_for(base: type, module: str, name: str) -> Any:
    """A class such as ``base`` of another library."""
    return type(name, (base,), {**base.__dict__, "__module__": module})


Frame = stands_for(_Frame, "pandas.core.frame", "DataFrame")
Series = stands_for(_Series, "pandas.core.series", "Series")


class Rows(Frame):  # type: ignore[misc]
    """A class of the user's."""

    def __getitem__(self, index: int) -> Any:
        return [COLUMNS[name][index] for name in self.columns]


WAYS: dict[str, Callable[[Any], Any]] = {
    "sequence ": lambda table: prefetch(table, 0),
    "sequence  ": lambda table: prefetch(table, "auto", batch_size=2, shuffle=True),
    "source_split ": lambda table: SequenceMap(table, 2, str),
    "arrays ": SequenceArray,
    "x ": lambda table: MultiShotMemorySampler(table, [0, 0, 1, 1], 2, 2, 3),
    "x  ": lambda table: select_examples(table, [0, 0, 1, 1]),
}
ROWS = r"for its rows, give SequenceArray\(\{name: table\[name\].to_numpy\(\) for name in table.columns\}\)"
FRAMES: list[tuple[Any, str]] = [
    (Frame(), f"pandas DataFrame, whose items are found by column: {ROWS}"),
    (stands_for(Frame, "geopandas.geodataframe", "GeoDataFrame")(), "pandas GeoDataFrame, whose items are found by"),
    (stands_for(_Frame, "modin.pandas", "DataFrame")(), "modin DataFrame, whose items are found by column"),
    (stands_for(_Frame, "cudf.core", "DataFrame")(), "cudf DataFrame, whose items are found by column"),
    (stands_for(_Frame, "dask.dataframe", "DataFrame")(), r"dask DataFrame.*table.compute\(\)"),
    (stands_for(_Frame, "polars.dataframe", "DataFrame")(), f"polars DataFrame, whose items are tables of one.*{ROWS}"),
    (stands_for(object, "polars.lazyframe", "LazyFrame")(), r"polars LazyFrame.*table.collect\(\)"),
    (Series([3, 1, 0, 2]), r"pandas Series, whose items are found by label.*give series.to_numpy\(\)"),
    (Series(["a", "b"]), "pandas Series, whose items are found by label"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("table", "text"), FRAMES, ids=[text[:30] for _, text in FRAMES])
def test_data_frames(way: str, table: Any, text: str) -> None:
    if way.startswith("x"):
        text = text.replace(ROWS, r"for its rows, give numpy.stack\(\[table\[name\].to_numpy\(\) for")
    with pytest.raises(TypeError, match=f"^{way.strip()} is a {text}"):
        WAYS[way](table)


def test_what_has_rows_or_values_by_index_is_a_source() -> None:
    for source, first in ((Series(range(3)), 0.0), (Rows(), [0, 0, 1.0])):
        with prefetch(source, 0) as batches:
            assert next(iter(batches)) == first


def test_what_is_written_instead() -> None:
    array = SequenceArray({name: Frame()[name] for name in Frame().columns})
    assert [list(row.values()) for row in array][1] == [1, 10, 1.0]


def test_sparse_matrices() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.arange(12.0).reshape(4, 3) * (np.arange(3) != 1)
    for name in ("csr_array", "csr_matrix", "csc_array", "coo_array", "lil_matrix", "dok_array", "dia_matrix"):
        matrix = getattr(sparse, name)(dense)
        for way, make in {**WAYS, "arrays['x']": lambda table: SequenceArray({"x": table})}.items():
            with pytest.raises(TypeError, match=rf"is a scipy {name}, whose items are sparse.*toarray\(\)") as raised:
                make(matrix)
            assert str(raised.value).startswith(way.strip())

    class Sparse:
        def __init__(self, matrix: Any) -> None:
            self.matrix = matrix

        def __len__(self) -> int:
            return int(self.matrix.shape[0])

        def __getitem__(self, index: int) -> Any:
            return self.matrix[[index]].toarray()[0]

    for name in ("csr_array", "csr_matrix"):
        with prefetch(Sparse(getattr(sparse, name)(dense)), 0, batch_size=4) as batches:
            assert next(iter(batches)).tolist() == dense.tolist()


def test_tables_of_arrow() -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": [1, 2, 3, 4], "b": ["w", "x", "y", "z"]})
    column = "table[name].to_numpy(zero_copy_only=False) for name in table.column_names"
    for source, text in (
        (table, f"pyarrow Table, whose items are columns: for its rows, give SequenceArray({{name: {column}}})"),
        (table.to_batches()[0], "pyarrow RecordBatch, whose items are columns: for its rows, give SequenceArray("),
        (table["a"], "pyarrow ChunkedArray, whose items are Arrow objects: give column.to_numpy()"),
        (table["b"].chunk(0), "pyarrow StringArray, whose items are Arrow objects: give array.to_numpy("),
    ):
        for way in list(WAYS)[:4]:
            with pytest.raises(TypeError) as raised:
                WAYS[way](source)
            assert str(raised.value).startswith(f"{way.strip()} is a {text}")
        if hasattr(source, "column_names"):
            array = SequenceArray({name: source[name].to_numpy(zero_copy_only=False) for name in source.column_names})
            assert list(array)[2] == {"a": 3, "b": "y"}
    with pytest.raises(TypeError, match=r"^x is a pyarrow Table.*give numpy.stack\(\["):
        WAYS["x "](table)
