"""What a material slot shows: which image is behind its Base Color, through which UV map, and that image's own files.

Only an Image Texture that is plugged straight into Base Color is understood (a UV Map node before it is, too):
whatever lies between would be painted over, or painted twice. Nothing here changes anything.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import bpy
import numpy as np

from .pixels import encode_png, levels_of
from .problems import Problem

FIRST_TILE = 1001


@dataclass(frozen=True)
class Source:
    """The base colour of a slot.

    Attributes:
        material, node, image: as Blender has them; None where there is none. uv_map: the map that a UV Map node names.
        colour: what the slot shows without an image, linear RGB.
    """

    material: object = None
    node: object = None
    image: object = None
    uv_map: str = ""
    colour: tuple[float, float, float] = (0.8, 0.8, 0.8)


@dataclass(frozen=True)
class TileFile:
    """One file of an image as it is. number: UDIM, 1001 where there is only one."""

    number: int
    width: int
    height: int
    data: bytes = field(repr=False)


def source_of(material, slot):
    """What is behind Base Color. Raises `Problem` E_GRAPH."""
    if material is None:
        return Source()
    shader = shader_of(material)
    if shader is None:
        return Source(material, colour=tuple(material.diffuse_color[:3]))
    if shader.type != "BSDF_PRINCIPLED":
        raise not_understood(slot, f"its shader is {shader.bl_label}")
    socket = shader.inputs["Base Color"]
    if not socket.is_linked:
        return Source(material, colour=tuple(socket.default_value[:3]))
    node = socket.links[0].from_node
    if node.type != "TEX_IMAGE" or socket.links[0].from_socket.name != "Color":
        raise not_understood(slot, f"its Base Color comes from {node.bl_label}")
    if node.projection != "FLAT":
        raise not_understood(slot, "its image is projected")
    return Source(material, node, node.image, uv_map_of(node, slot))


def source_or_none(item, slot):
    """The image behind a slot of an object, or None: also for graphs that are not understood."""
    material = item.material_slots[slot].material if slot < len(item.material_slots) else None
    try:
        return source_of(material, slot).image
    except Problem:
        return None


def shader_of(material):
    """The node behind the material's surface; None if it has no nodes, or nothing is plugged in."""
    if not material.use_nodes or material.node_tree is None:
        return None
    output = material.node_tree.get_output_node("ALL")
    surface = output.inputs["Surface"] if output is not None else None
    return surface.links[0].from_node if surface is not None and surface.is_linked else None


def uv_map_of(node, slot):
    socket = node.inputs["Vector"]
    if not socket.is_linked:
        return ""
    origin = socket.links[0]
    if origin.from_node.type == "UVMAP" and not origin.from_node.from_instancer:
        return origin.from_node.uv_map
    if origin.from_node.type == "TEX_COORD" and origin.from_socket.name == "UV" and origin.from_node.object is None:
        return ""
    raise not_understood(slot, f"its image is placed by {origin.from_node.bl_label}")


def not_understood(slot, why):
    text = f"Slot {slot + 1} cannot be repainted: {why}."
    return Problem("E_GRAPH", text, "Plug an Image Texture straight into Base Color, or bake it to one first.")


def files_of(image):
    """The files of an image, one for each tile, as they are in the .blend or on the disk. Raises `Problem`."""
    if image.source == "TILED":
        return [TileFile(tile.number, *tile.size, data=tile_bytes(image, tile.number)) for tile in image.tiles]
    if image.source not in ("FILE", "GENERATED"):
        raise Problem("E_GRAPH", f"The image {image.name} is a film or a render.", "Use a still image.")
    data = b"" if image.is_dirty or image.source == "GENERATED" else stored_bytes(image)
    data = data or saved_copy(image)
    return [TileFile(FIRST_TILE, *image.size, data=data)]


def stored_bytes(image):
    """The packed file, or the one on the disk; empty if neither is there."""
    if image.packed_file is not None:
        return bytes(image.packed_file.data)
    path = Path(bpy.path.abspath(image.filepath_raw, library=image.library))
    return path.read_bytes() if image.filepath_raw and path.is_file() else b""


def tile_bytes(image, number):
    """The file of one tile. Raises `Problem` for tiles that were painted on and not saved."""
    if image.is_dirty:
        raise Problem(
            "E_GRAPH", f"The tiles of {image.name} have unsaved changes.", "Save the image first (Image, Save)."
        )
    for packed in image.packed_files:
        if packed.tile_number == number:
            return bytes(packed.packed_file.data)
    path = Path(bpy.path.abspath(image.filepath_raw.replace("<UDIM>", str(number)), library=image.library))
    if not path.is_file():
        raise lost(image)
    return path.read_bytes()


def saved_copy(image):
    """The pixels as a file of the image's own kind, for what was painted and not saved."""
    if not image.has_data and not image.size[0]:
        raise lost(image)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        try:
            if bpy.app.version >= (4, 3, 0):
                image.save(filepath=str(path), save_copy=True)
            else:  # saving would rename the image itself
                save_twin(image, path)
        except RuntimeError as error:
            raise lost(image) from error
        return path.read_bytes()


def save_twin(image, path):
    """Writes an image's pixels through another image, which is gone afterwards."""
    width, height = image.size
    pixels = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(pixels)
    rgba = np.ones((width * height, 4), np.float32)
    rgba[:, : image.channels] = pixels.reshape(-1, image.channels)
    twin = bpy.data.images.new(image.name, width, height, alpha=image.channels == 4, float_buffer=image.is_float)
    try:
        twin.colorspace_settings.name = image.colorspace_settings.name
        twin.file_format = image.file_format
        twin.pixels.foreach_set(rgba.ravel())
        twin.save(filepath=str(path))
    finally:
        bpy.data.images.remove(twin)


def lost(image):
    text = f"The image {image.name} has no pixels: its file is missing."
    return Problem("no_image", text, "Find it with File, External Data, Find Missing Files.")


def plain_picture(colour, size):
    """PNG of one colour (linear RGB), for a slot that has no image yet."""
    linear = np.clip(np.asarray(colour, np.float64), 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels = np.ones((size, size, 3), np.float32) * srgb.astype(np.float32)
    return encode_png(levels_of(pixels))
