"""Forwards to the helpers."""

from tests.helpers.costs import NOT_MEASURED  # noqa: F401
from tests.helpers.workbench import *  # noqa: F403
