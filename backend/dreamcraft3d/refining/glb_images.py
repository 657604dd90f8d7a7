"""New images into a GLB file, everything else byte for byte.

Positions, texture coordinates, indices, animations and extensions keep their bytes; the JSON changes where it must: the
lengths and offsets of the views behind a replaced image, and the material of a new one.
"""

import json
from collections.abc import Mapping
from typing import Any

from dreamcraft3d.export.gltf import container
from dreamcraft3d.refining.glb import GlbFile

__all__ = ["with_images"]


def with_images(file: GlbFile, images: Mapping[int, bytes]) -> bytes:
    """The file with the base colour images (PNG) of some slots replaced.

    An image that nothing else shows is replaced where it lies; otherwise the slot's material gets one of its own.
    """
    if not images:
        return file.data
    document: dict[str, Any] = json.loads(json.dumps(file.document))
    views, binary = document.setdefault("bufferViews", []), file.binary
    for slot, png in images.items():
        image = _image_for(document, slot)
        image["mimeType"] = "image/png"
        image.pop("uri", None)
        if "bufferView" in image and _is_private(document, image["bufferView"]):
            binary = _spliced(views, image["bufferView"], png, binary)
        else:
            binary += bytes(-len(binary) % 4)
            views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(png)})
            image["bufferView"] = len(views) - 1
            binary += png
    binary += bytes(-len(binary) % 4)
    document.setdefault("buffers", [{}])[0]["byteLength"] = len(binary)
    return container(document, binary)


def _image_for(document: dict[str, Any], slot: int) -> dict[str, Any]:
    """The record of the image that a slot's material alone shows; a new one if it has none, or shares it."""
    pbr = document["materials"][slot].setdefault("pbrMetallicRoughness", {})
    images, textures = document.setdefault("images", []), document.setdefault("textures", [])
    info = pbr.get("baseColorTexture")
    if info is not None:
        texture = textures[info["index"]]
        sharing = sum(other.get("source") == texture["source"] for other in textures)
        if _uses(document["materials"], info["index"]) == sharing == 1:
            return images[texture["source"]]  # type: ignore[no-any-return]
        textures.append({**texture, "source": len(images)})
        info["index"] = len(textures) - 1
    else:
        textures.append({"source": len(images)})
        pbr["baseColorTexture"] = {"index": len(textures) - 1}
        pbr["baseColorFactor"] = [1.0, 1.0, 1.0, pbr.get("baseColorFactor", [1.0] * 4)[3]]  # it is in the image now
    images.append({"name": document["materials"][slot].get("name", "DreamCraft")})
    return images[-1]  # type: ignore[no-any-return]


def _uses(value: object, texture: int, *, key: str = "") -> int:
    """How many times a texture is referred to, anywhere in the materials."""
    if isinstance(value, dict):
        here = int(key.lower().endswith("texture") and value.get("index") == texture)
        return here + sum(_uses(inner, texture, key=name) for name, inner in value.items())
    if isinstance(value, list):
        return sum(_uses(inner, texture, key=key) for inner in value)
    return 0


def _is_private(document: Mapping[str, Any], view: int) -> bool:
    """Whether a view belongs to one image and its bytes to no other view."""
    users = [
        item for kind in ("images", "accessors") for item in document.get(kind, []) if item.get("bufferView") == view
    ]
    start, end = _extent(document["bufferViews"][view])
    others = (_extent(other) for k, other in enumerate(document["bufferViews"]) if k != view)
    return len(users) == 1 and all(e <= start or s >= end for s, e in others)


def _spliced(views: list[dict[str, Any]], index: int, data: bytes, binary: bytes) -> bytes:
    """`data` in place of a view's bytes; the views behind it move by a multiple of four, as their alignment wants."""
    start, end = _extent(views[index])
    views[index]["byteLength"] = len(data)
    data += bytes((end - start - len(data)) % 4)
    for view in views:
        if view is not views[index] and view.get("byteOffset", 0) >= end:
            view["byteOffset"] += len(data) - (end - start)
    return binary[:start] + data + binary[end:]


def _extent(view: Mapping[str, Any]) -> tuple[int, int]:
    start = view.get("byteOffset", 0)
    return start, start + view["byteLength"]
