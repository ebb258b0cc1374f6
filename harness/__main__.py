"""``python -m harness``, and the console script ``pruning-benchmark``."""

import os
import sys

from harness.importing import own_packages_first

SPIN_COUNT = "1000"
"""How long a thread of OpenMP waits actively for work before it sleeps, in rounds of a loop.

By default it hardly ever sleeps. Two runs on one machine then take the processors from each other
while they wait, and each becomes ten to twenty times slower. With this number it is two to three
times; a lone run loses about a tenth (`python -m benchmarks.speed shared`).
"""


def main() -> int:
    """Execute the command line and return its exit code."""
    own_packages_first()
    # OpenMP reads it when torch is imported, here and in all processes that start from here.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # Imported only after the search path is safe.
    from harness import command_line

    return command_line.main()


if __name__ == "__main__":
    sys.exit(main())
