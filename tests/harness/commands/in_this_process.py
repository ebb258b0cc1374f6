"""Forwards to tests.helpers.commands."""

from tests.helpers.commands import *  # noqa: F403
