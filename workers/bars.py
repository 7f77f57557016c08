"""Progress bars, by tqdm: silent where stderr is neither a terminal nor a notebook.

tqdm is imported along with this module, so whoever makes a bar imports it then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm

DELAY_S = 1.0  # what takes less than this shows no bar


class Bar(_Tqdm):
    """A bar for what may take long. It appears when that has taken a second.

    Args:
        iterable: what to go through, or None.
        **options: of tqdm; they, and tqdm's variables of the environment, take the place of ours.
    """

    #: tqdm has no thread that looks after this bar: ``miniters=1``, so each step looks at the time itself.
    monitor_interval = 0

    def __init__(self, iterable: Iterable[Any] | None = None, **options: Any) -> None:
        ours = {"delay": DELAY_S, "disable": False if in_notebook() else None, "miniters": 1}
        ours = {name: value for name, value in ours.items() if f"TQDM_{name.upper()}" not in os.environ}
        super().__init__(iterable, **{**ours, **options})

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        """As tqdm's, which would keep the lock of all bars for ever if a Ctrl-C came while it draws."""
        if nolock or lock_args:
            return super().refresh(nolock, lock_args)
        with self.get_lock():  # type: ignore[no-untyped-call]
            return super().refresh(nolock=True)


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, whose stderr is shown though it is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config
