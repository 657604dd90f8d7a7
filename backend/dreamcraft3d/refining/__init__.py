"""Refining: a new texture for a mesh that somebody else made, in that mesh's own texture coordinates.

    request (arrays + files) -> plan (who owns which texel) -> colour field over position -> images, masks, result.json

Nothing that comes back holds geometry: only images, keyed by slot, channel and tile. So the mesh cannot be changed, and
of its images only the texels of painted faces and the gutter around them are.

    refusals.py    what is refused, each with its remedy          request.py    the request as typed records
    folder.py      the request and the result as folders          tiles.py      image files to arrays, losslessly
    coverage.py    which triangle owns which texel                surface.py    the mesh in our frame, thin walls apart
    present.py     the colours that the mesh has now              visibility.py what the views show
    alignment.py   the picture laid over the mesh                 baking.py     field to texels, gutters, alpha
    plan.py        everything known before a prior is asked       run.py        refine()
    glb.py obj.py  mesh files whose geometry stays byte for byte

`request` and `folder` need no torch, and what they write, numpy alone can write.
"""
