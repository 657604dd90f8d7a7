"""Makes `shapes`, the meshes with known answers, importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
