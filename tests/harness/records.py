"""Forwards to tests.helpers.records."""

from tests.helpers.records import *  # noqa: F403
