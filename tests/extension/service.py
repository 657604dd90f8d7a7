"""The double as a process of its own, found and started as the real service is."""

import os
import sys
from pathlib import Path

from dreamcraft_blender.launcher import Installation, Launcher, alive, read_state

DOUBLE = Path(__file__).with_name("double.py")


class Home:
    """A folder that the double calls home. Ends every double that was started in it."""

    def __init__(self, folder: Path, *, manners: str = "", seconds: float = 0.5) -> None:
        self.folder = folder
        self.manners = manners
        self.seconds = seconds

    def launcher(self) -> Launcher:
        variables = {
            **os.environ,
            "DREAMCRAFT3D_HOME": str(self.folder),
            "DOUBLE_MANNERS": self.manners,
            "DOUBLE_SECONDS": str(self.seconds),
        }
        installation = Installation((sys.executable, str(DOUBLE)), "double")
        return Launcher(installation, log=self.folder / "serve.log", environment=variables)

    @property
    def state(self):
        return read_state(self.folder / "run" / "service.json")

    @property
    def starts(self) -> list[int]:
        path = self.folder / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def signal(self, number: int) -> None:
        os.kill(self.starts[-1], number)

    def close(self) -> None:
        for pid in self.starts:
            if alive(pid):
                os.kill(pid, 9)
