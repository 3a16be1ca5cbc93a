"""`python -m musicgen_edu` is `musicgen-edu`."""

from __future__ import annotations

import sys

from musicgen_edu.cli import main

sys.exit(main())
