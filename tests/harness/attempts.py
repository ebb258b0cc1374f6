"""Forwards to tests.helpers.attempts."""

from tests.helpers.attempts import *  # noqa: F403
