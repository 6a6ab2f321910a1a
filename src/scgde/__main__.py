"""``python -m scgde``."""

import sys

from scgde.cli import main

sys.exit(main())
