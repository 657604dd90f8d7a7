"""A worker that makes objects in milliseconds: the service's real worker process, with another heart.

What it makes depends on the picture and the settings, as with the real one. The name of the picture can ask for
trouble: ``poison`` fails, ``crash`` dies, ``silent`` freezes, ``disk`` finds the disk full, ``slow`` takes seconds.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from dreamcraft3d.errors import InputError, OutputError
from dreamcraft3d.progress import Progress
from dreamcraft3d.server import worker
from dreamcraft3d.workspace import Workspace, atomic_path


class Painter(worker.Worker):
    """Writes every file that the pipeline writes."""

    def _compute(self, order: Mapping[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
        picture, settings = Path(order["files"]["picture"]), order["request"]["settings"]
        with Workspace(folder) as workspace:
            trouble(picture.stem)
            checkpoint = workspace.checkpoint("coarse_nerf")
            start = int(checkpoint.read_text()) if checkpoint.exists() else 0
            steps = settings.get("coarse_nerf.steps", 3)
            for step in progress.track("coarse_nerf", range(start, steps), steps):
                for _ in range(250 if "slow" in picture.stem else 1):
                    progress.check()
                    time.sleep(0.01)
                with atomic_path(checkpoint) as temporary:
                    temporary.write_text(str(step + 1))
            digest = hashlib.sha256(picture.read_bytes() + json.dumps(order["request"], sort_keys=True).encode())
            workspace.write_bytes("result.glb", digest.digest() * 8)
            with atomic_path(workspace.file("turntable.png")) as temporary:
                Image.new("RGB", (64, 32), (digest.digest()[0], 80, 120)).save(temporary, "PNG")
            report = {"seconds": 0.1, "faces": 12, "metrics": {"reference_psnr": 20.0}}
            workspace.write_json("report.json", report)
            with workspace.file("made.txt").open("a") as made:
                made.write(f"{os.getpid()}\n")
        return report


def trouble(name: str) -> None:
    """What a real worker may meet."""
    if "poison" in name:
        raise InputError("The picture shows nothing.", "Choose another one.")
    if "disk" in name:
        raise OutputError("The disk is full.", "Free some space.")
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "silent" in name:
        os.kill(os.getpid(), signal.SIGSTOP)


worker.Worker = Painter  # type: ignore[misc]

if __name__ == "__main__":
    worker.main()
