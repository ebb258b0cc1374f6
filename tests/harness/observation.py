"""Forwards to tests.helpers.observation."""

from tests.helpers.observation import *  # noqa: F403
