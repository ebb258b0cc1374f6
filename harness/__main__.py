"""``python -m harness``, and the console script ``pruning-benchmark``."""

import sys

from harness.importing import own_packages_first


def main() -> int:
    """Execute the command line and return its exit code."""
    own_packages_first()
    # Imported only after the search path is safe.
    from harness import command_line

    return command_line.main()


if __name__ == "__main__":
    sys.exit(main())
