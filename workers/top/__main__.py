"""Run the command ``python -m workers.top [PID] [--once]``, which shows pools of workers."""

import sys

from .command import main

sys.exit(main())
