"""The pictures in `examples/`: held-out procedural objects, drawn large from the front.

`python -m dreamcraft3d.training.examples FOLDER` draws them again, bit for bit.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.training.render import render_rgba
from dreamcraft3d.training.shapes import make_object

EXAMPLES = {"mushroom": 46, "teddy": 4, "rocket": 125, "mug": 11, "teapot": 5, "potted_plant": 3}
"""Kind and seed; none of these objects is in the training set."""


def write_example(path: Path, *, kind: str, seed: int, size: int = 512) -> None:
    """The reference view as a PNG with straight alpha."""
    thing = make_object(seed, kind=kind, detail=4)
    rgba = render_rgba(thing.solid, orbit(thing.elevation, 0.0), size=size, supersampling=4)[0]
    straight = torch.cat([rgba[..., :3] / rgba[..., 3:].clamp_min(1e-6), rgba[..., 3:]], dim=-1)
    Image.fromarray((straight.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).numpy()).save(path, optimize=True)


def main() -> None:
    """Draws every example into a folder."""
    parser = argparse.ArgumentParser(description="draw the example pictures")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for kind, seed in EXAMPLES.items():
        write_example(folder / f"{kind}.png", kind=kind, seed=seed)


if __name__ == "__main__":
    main()
