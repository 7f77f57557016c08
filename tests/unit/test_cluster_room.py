"""How many workers fit into a Ray cluster."""

from __future__ import annotations

from typing import Any

import pytest

from workers.cluster import connection


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [(None, 8), ({"CPU": 3}, 2), ({"GPU": 1}, 2), ({"CPU": 0}, 8), ({"CPU": 0, "GPU": 0.5}, 4), ({"TPU": 1}, 1)],
)
def test_as_many_as_their_resources_allow(
    resources: dict[str, float] | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    options: dict[str, Any] = {} if resources is None else {"resources": resources}
    assert connection.room(options) == wanted
