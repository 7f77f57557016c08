"""What a pipeline delivers is what the model says, and the same bytes without workers, whatever is done to its loop.

Hypothesis draws pipelines and steps; the examples are the same in every run. MODEL_EXAMPLES=n runs that many.
"""

from __future__ import annotations

import logging
import os

import pytest
from machine import SHARES, Machine, hold

NUM_EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "60"))


@pytest.mark.needs("hypothesis", "torch", "keras")
@pytest.mark.parametrize("machine", SHARES, ids=lambda machine: machine.__name__)
def test_model(machine: type[Machine], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "workers")  # else a line for each batch that is skipped
    hold(machine, round(SHARES[machine] * NUM_EXAMPLES))
