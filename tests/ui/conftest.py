"""Tests that need a Blender with a window; they are skipped, with the reason, where there is none."""
