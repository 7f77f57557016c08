"""``python -m workers.top [PID] [--once]``."""

import sys

from .command import main

sys.exit(main())
