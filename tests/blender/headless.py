"""Stands for Blender: ``headless.py --background --command dreamcraft WORDS`` with bpy and this source tree.

It differs from Blender in how it starts and ends only.
"""

import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Registers the extension and runs its command."""
    assert sys.argv[1:4] == ["--background", "--command", "dreamcraft"], sys.argv
    with tempfile.TemporaryDirectory() as empty:
        os.environ["BLENDER_USER_RESOURCES"] = empty
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        import bpy

        import dreamcraft_blender

        bpy.ops.wm.read_factory_settings(use_empty=True)
        dreamcraft_blender.register()
        from dreamcraft_blender import commands

        code = commands.run(sys.argv[4:])
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
