"""Forwards to tests.helpers.fabricated."""

from tests.helpers.fabricated import *  # noqa: F403
