"""`dreamcraft3d` with a quick worker: ``python quick.py batch run ...``. What it makes are small real models.

The worker is the painter with GLB files that Blender reads; everything else is the program itself.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "extension"), str(TESTS / "batch")]

import painter  # noqa: E402
from double import glb  # noqa: E402

from dreamcraft3d.progress import Progress  # noqa: E402
from dreamcraft3d.server import worker  # noqa: E402
from dreamcraft3d.workspace import atomic_path  # noqa: E402


class Modeller(painter.Painter):
    """Replaces the painter's bytes by a model."""

    def _compute(self, order, folder: Path, progress: Progress):
        report = super()._compute(order, folder, progress)
        with atomic_path(folder / "result.glb") as temporary:
            temporary.write_bytes(glb())
        return report


worker.Worker = Modeller  # type: ignore[misc]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.argv.pop(1)
        worker.main()
    else:
        from dreamcraft3d.batch import crew
        from dreamcraft3d.cli import main

        command = (sys.executable, __file__, "--worker")
        crew.LocalCrew.__init__.__kwdefaults__["command"] = command  # type: ignore[index]
        main()
