"""Where the service keeps things: data that lasts, and the file through which others find a running service.

``DREAMCRAFT3D_HOME`` puts both below one folder (for tests, and for people with several installations).
"""

import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import platformdirs

__all__ = ["ServicePaths", "service_paths"]

NAME = "dreamcraft3d"
HOME = "DREAMCRAFT3D_HOME"


@dataclass(frozen=True)
class ServicePaths:
    """`data`: database, uploads, jobs, logs. `runtime`: the state file of the running service."""

    data: Path
    runtime: Path

    @property
    def database(self) -> Path:
        return self.data / "jobs.sqlite"

    @property
    def uploads(self) -> Path:
        return self.data / "uploads"

    @property
    def log(self) -> Path:
        return self.data / "logs" / "service.log"

    @property
    def state_file(self) -> Path:
        return self.runtime / "service.json"

    def job(self, job_id: str) -> Path:
        """The workspace of a job."""
        return self.data / "jobs" / job_id

    def prepare(self) -> None:
        """Makes the folders, readable for their user only."""
        for folder in (self.data, self.runtime, self.uploads, self.data / "jobs", self.log.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)


def service_paths(data: Path | None = None) -> ServicePaths:
    """The folders of this user, or those that were asked for."""
    home = os.environ.get(HOME)
    if home:
        base = Path(home).expanduser().absolute()
        return ServicePaths((data or base / "data").absolute(), base / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the fallback, which is judged here
        runtime = Path(platformdirs.user_runtime_dir(NAME))
    # Without a session (a container, cron) the fallback lies where every user may make folders: not for a token.
    if not runtime.parent.is_dir() or Path(tempfile.gettempdir()) in runtime.parents:
        runtime = Path(platformdirs.user_state_dir(NAME))
    return ServicePaths((data or Path(platformdirs.user_data_dir(NAME))).expanduser().absolute(), runtime)
