"""Runs the command line as `python -m i2sb_rt.cli`."""

import sys

from i2sb_rt.cli import main

sys.exit(main())
