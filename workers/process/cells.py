"""Source text that lies in no file: of the cells of a notebook, or of what ``exec`` runs.

``linecache`` of the process that ran it has the text, under a name such as ``/tmp/ipykernel_123/456.py`` or
``<ipython-input-3-9f2c>``. It is sent along with the functions that were made of it, so that a worker has it as well:
for the traceback of a job, and for all that reads the source of a function, such as TensorFlow's AutoGraph.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any


def texts_of(names: Iterable[str]) -> dict[str, str]:
    """{name: text} of those of these source files that are no files. Runs in: consumer."""
    texts = {name: "".join(linecache.getlines(name)) for name in sorted(names) if not os.path.isfile(name)}
    return {name: text for name, text in texts.items() if text}


def learn(texts: dict[str, str]) -> None:
    """Have ``linecache`` know these texts. Runs in: worker."""
    for name, text in texts.items():
        # No time of change: then it looks for no file, and keeps the text.
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name


def of_file(name: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    """Code that is made by ``make(*arguments)``, compiled from file ``name``. Runs in: worker."""
    return make(*arguments).replace(co_filename=name)
