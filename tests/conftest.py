"""What all tests share: the source tree is importable in child processes too, and Warp is quiet."""

import os
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1] / "backend"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BACKEND), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch, as the package does
