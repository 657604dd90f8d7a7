"""The pictures in `examples/`: held-out procedural objects, drawn large from the front.

`python -m dreamcraft3d.training.examples FOLDER` draws them again, bit for bit; `--meshes` writes the objects as GLB,
too, for `dreamcraft3d evaluate --oracle` and `dreamcraft3d ablate`.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from dreamcraft3d.export import TexturedMesh, write_glb
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


def write_example_mesh(path: Path, *, kind: str, seed: int) -> None:
    """The object itself, with its colours at the vertices."""
    solid = make_object(seed, kind=kind, detail=2).solid
    vertices, faces, colours = (torch.from_numpy(a) for a in (solid.vertices, solid.faces, solid.colours))
    path.write_bytes(write_glb(TexturedMesh(vertices.float(), faces.long(), vertex_colours=colours.float())))


def main() -> None:
    """Draws every example into a folder."""
    parser = argparse.ArgumentParser(description="draw the example pictures")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--meshes", action="store_true", help="write the objects as GLB, too")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for kind, seed in EXAMPLES.items():
        write_example(folder / f"{kind}.png", kind=kind, seed=seed)
        if arguments.meshes:
            write_example_mesh(folder / f"{kind}.glb", kind=kind, seed=seed)


if __name__ == "__main__":
    main()
