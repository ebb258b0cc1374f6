"""Forwards to tests.helpers.networks."""

from tests.helpers.networks import *  # noqa: F403
