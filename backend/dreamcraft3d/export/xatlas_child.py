"""The unwrap as a process that can be killed: `python xatlas_child.py SIZE PADDING SECONDS < IN > OUT`.

Started by path and importing nothing but numpy and xatlas, it is up in a tenth of a second and needs little memory.
Reads an npz of `vertices` (V x 3) and `faces` (F x 3); writes one of `corners` (F x 3, vertex of the atlas) and `uvs`
(one per vertex of the atlas, in units of the texture's side, v up).

xatlas treats a wanted resolution as a hint and may end up half as large again, which would shrink the padding. So the
charts are made once, and packed again (cheap) for smaller and smaller hints until they fit into SIZE texels with
PADDING between them.
"""

import io
import signal
import sys

import numpy as np
import xatlas


def main() -> None:
    """Unwraps what stands on standard input."""
    size, padding, seconds = (int(argument) for argument in sys.argv[1:4])
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)  # ends this process even if the parent was killed and cannot do it
    data = np.load(io.BytesIO(sys.stdin.buffer.read()))
    charts = xatlas.Atlas()
    charts.add_mesh(data["vertices"].astype(np.float32), data["faces"].astype(np.uint32))
    charts.generate()
    _, corners, uvs = charts.get_mesh(0)
    uvs = (uvs * np.array([charts.width, charts.height])).astype(np.float32)
    hint = round(0.85 * size)
    while True:
        pack = xatlas.PackOptions()
        pack.resolution, pack.padding, pack.bilinear = hint, padding, True
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(uvs, corners.astype(np.uint32))
        atlas.generate(pack_options=pack)
        side = max(atlas.width, atlas.height)
        if side <= size or hint < 16:
            break
        hint = int(hint * min(0.95, size / side))
    _, packed, places = atlas.get_mesh(0)
    places = places.astype(np.float64) * np.array([atlas.width, atlas.height]) / max(size, side)
    out = io.BytesIO()
    np.savez(out, corners=packed.astype(np.int64), uvs=places)
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    main()
