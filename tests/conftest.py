"""What all tests share: the source tree is importable in child processes too, and Warp is quiet."""

import os
from pathlib import Path

from hypothesis import settings

BACKEND = Path(__file__).resolve().parents[1] / "backend"

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BACKEND), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch, as the package does
if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A developer's runs look for new counterexamples; a check of a submission asks the same questions every time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
