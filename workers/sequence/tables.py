"""Rejects tables and sparse matrices that are given as samples, because ``table[i]`` is not row ``i`` of the table.

For each known kind of table, the error says what to write instead. Kinds are recognised by the names of their classes,
so that no library is imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class _Kind(NamedTuple):
    """The parts of the error text for one kind of table or matrix, such as a pandas DataFrame."""

    items: str  # what the text says about the table's items, e.g. "are columns"
    column: str = ""  # the expression for a column as an array
    names: str = ""  # the expression for the names of the columns
    instead: str = ""  # what to write instead, if there are no columns


_DENSE = (
    "give matrix.toarray(), or, if that is too large, an object whose __len__ returns matrix.shape[0] and whose "
    "__getitem__(i) returns matrix[[i]].toarray()[0], with a matrix in CSR format"
)
_FRAME = _Kind("are found by column", "table[name].to_numpy()", "table.columns")
_ARROW = _Kind("are columns", "table[name].to_numpy(zero_copy_only=False)", "table.column_names")
_SPARSE = _Kind("are sparse, so no batch of arrays can be made from them", instead=_DENSE)

_KINDS = {
    ("pandas", "DataFrame"): _FRAME,
    ("modin", "DataFrame"): _FRAME,
    ("cudf", "DataFrame"): _FRAME,
    ("dask", "DataFrame"): _Kind("are found by column", instead="compute it with table.compute() and give its columns"),
    ("polars", "DataFrame"): _FRAME._replace(items="are tables of one row"),
    ("polars", "LazyFrame"): _Kind("are not computed", instead="compute it with table.collect() and give its columns"),
    ("pyarrow", "Table"): _ARROW,
    ("pyarrow", "RecordBatch"): _ARROW,
    ("pyarrow", "ChunkedArray"): _Kind("are Arrow objects", instead="give column.to_numpy()"),
    ("pyarrow", "Array"): _Kind("are Arrow objects", instead="give array.to_numpy(zero_copy_only=False)"),
    ("scipy", "_spbase"): _SPARSE,
    ("scipy", "spmatrix"): _SPARSE,
}
_LABELED = {("pandas", "Series"), ("modin", "Series"), ("cudf", "Series")}
_PACKAGES = {*(package for package, _ in _KINDS), "geopandas"}


def check_table(name: str, value: Any, is_for_array: bool = False) -> None:
    """Raise TypeError if ``value``, the argument ``name``, is a table or matrix in which ``value[i]`` is not row ``i``.

    Args:
        is_for_array: True if the error must suggest one array for the rows; False if it may suggest a SequenceArray.
    """
    kind = type(value)
    getitem_of = next((each for each in kind.__mro__ if "__getitem__" in each.__dict__), None)
    if getitem_of is not None and _package(getitem_of) not in _PACKAGES:
        return  # a user subclass with its own __getitem__
    for each in kind.__mro__:
        key = _package(each), each.__name__
        if key in _KINDS:
            items, column, names, instead = _KINDS[key]
            if column and is_for_array:
                instead = f"for its rows, give numpy.stack([{column} for name in {names}], 1)"
            elif column:
                instead = f"for its rows, give SequenceArray({{name: {column} for name in {names}}})"
            raise TypeError(f"{name} is a {key[0]} {kind.__name__}, whose items {items}: {instead}")
        if key in _LABELED and not np.array_equal(np.asarray(value.index), np.arange(len(value))):
            raise TypeError(
                f"{name} is a {key[0]} {kind.__name__}, whose items are found by label, and its labels are not 0, 1, "
                "2, ...: give series.to_numpy()"
            )


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
