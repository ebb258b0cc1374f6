"""Forwards to tests.helpers.workbench."""

from tests.helpers.workbench import *  # noqa: F403
