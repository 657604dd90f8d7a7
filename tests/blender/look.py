"""What Blender makes of a GLB: `python look.py IN.glb OUT.json`, in a process of its own.

For each polygon: its centre and normal in Blender's world, and the colour of the base colour texture at its middle.
"""

import json
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Imports, looks, writes."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ["BLENDER_USER_RESOURCES"] = empty
        Path(sys.argv[2]).write_text(json.dumps(look(sys.argv[1])))


def look(path: str) -> dict[str, object]:
    """The imported object as plain numbers."""
    import bpy
    import numpy as np

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path)
    (item,) = [o for o in bpy.context.scene.objects if o.type == "MESH"]
    mesh, matrix = item.data, item.matrix_world
    shader = next(n for n in mesh.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    node = shader.inputs["Base Color"].links[0].from_node
    image = node.image
    pixels = np.array(image.pixels[:]).reshape(image.size[1], image.size[0], 4)  # row 0 is the bottom
    layer = mesh.uv_layers.active.data
    faces = []
    for polygon in mesh.polygons:
        u, v = np.mean([layer[i].uv for i in polygon.loop_indices], axis=0)
        column, row = (min(int(t * n), n - 1) for t, n in zip((u, v), image.size, strict=True))
        centre = matrix @ polygon.center
        normal = (matrix.to_3x3() @ polygon.normal).normalized()
        faces.append({"centre": list(centre), "normal": list(normal), "colour": pixels[row, column, :3].tolist()})
    specular = shader.inputs.get("Specular IOR Level") or shader.inputs["Specular"]
    return {
        "faces": faces,
        "colour_space": image.colorspace_settings.name,
        "metallic": shader.inputs["Metallic"].default_value,
        "roughness": shader.inputs["Roughness"].default_value,
        "specular": specular.default_value,
        "packed": image.packed_file is not None,
    }


if __name__ == "__main__":
    main()
