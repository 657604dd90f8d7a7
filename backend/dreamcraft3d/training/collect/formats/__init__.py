"""Readers of mesh formats, one module each: bytes in, parts out. They open no file and check every bound."""
