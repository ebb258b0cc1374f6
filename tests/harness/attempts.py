"""Forwards to the helpers."""

from harness.contracts import Killed, StopAfter  # noqa: F401
from tests.helpers.attempts import NEVER, OFTEN, Attempts, attempts  # noqa: F401
from tests.helpers.disk import FailingDisk as Disk  # noqa: F401
from tests.helpers.disk import full_disk, read_only_folder  # noqa: F401
