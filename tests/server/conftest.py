"""Fixtures of the service's tests."""

from serving import hosted, paths, shared

__all__ = ["hosted", "paths", "shared"]
