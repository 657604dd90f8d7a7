"""Makes Blender's monkey and exports it: `python tests/blender/suzanne.py OUT.glb [--subdivisions N]`.

She faces Blender's front view, so in the file she faces +z and in our frame the reference camera. Coloured, so that a
texture can be judged too: a warm face, white eyes, ears of two colours. Run it in a process of its own: bpy changes
the process it is loaded in.
"""

import argparse
import os
import tempfile
from pathlib import Path


def main() -> None:
    """Parses the arguments and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--subdivisions", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        os.environ["BLENDER_USER_RESOURCES"] = empty
        make(arguments.out.resolve(), arguments.subdivisions)


def make(out: Path, subdivisions: int) -> None:
    """Builds the object in an empty file and exports it as GLB."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_monkey_add(size=2.0)
    monkey = bpy.context.object
    if subdivisions:
        modifier = monkey.modifiers.new("Subdivision", "SUBSURF")
        modifier.levels = modifier.render_levels = subdivisions
        bpy.ops.object.modifier_apply(modifier=modifier.name)
    bpy.ops.object.shade_smooth()
    colours = monkey.data.color_attributes.new("Color", "FLOAT_COLOR", "POINT")
    eyes = _small_islands(len(monkey.data.vertices), [tuple(edge.vertices) for edge in monkey.data.edges])
    for vertex, colour in zip(monkey.data.vertices, colours.data, strict=True):
        colour.color_srgb = (*(_eye(*vertex.co) if vertex.index in eyes else _skin(*vertex.co)), 1.0)
    bpy.ops.export_scene.gltf(filepath=str(out), export_format="GLB", export_vertex_color="ACTIVE")


def _small_islands(count: int, edges: list[tuple[int, int]]) -> set[int]:
    """The vertices outside the largest connected component: her eyeballs."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    islands: list[set[int]] = []
    rest = set(range(count))
    while rest:
        front, island = [next(iter(rest))], set()
        while front:
            vertex = front.pop()
            if vertex in rest:
                rest.remove(vertex)
                island.add(vertex)
                front.extend(neighbours[vertex])
        islands.append(island)
    return set(range(count)) - max(islands, key=len)


def _ramp(x: float, low: float, high: float) -> float:
    t = max(0.0, min(1.0, (x - low) / (high - low)))
    return t * t * (3.0 - 2.0 * t)


def _mix(a: tuple[float, ...], b: tuple[float, ...], t: float) -> tuple[float, ...]:
    return tuple(p + (q - p) * t for p, q in zip(a, b, strict=True))


def _eye(x: float, y: float, z: float) -> tuple[float, ...]:
    """White, with a dark pupil where it bulges most towards -y."""
    return _mix((0.95, 0.95, 0.93), (0.08, 0.06, 0.05), _ramp(-y, 0.78, 0.82))


def _skin(x: float, y: float, z: float) -> tuple[float, ...]:
    """Warm, darker towards the chin, with one red ear (her right) and one blue."""
    face = _mix((0.48, 0.3, 0.2), (0.9, 0.66, 0.4), _ramp(z, -1.0, 0.9))
    return _mix(face, (0.75, 0.22, 0.18) if x < 0 else (0.2, 0.35, 0.78), _ramp(abs(x), 0.75, 1.0))


if __name__ == "__main__":
    main()
