"""Forwards to tests.helpers.points."""

from tests.helpers.points import *  # noqa: F403
