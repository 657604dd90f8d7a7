"""Measuring results: meshes from files, pictures of them, and the numbers that compare them with the truth."""

from dreamcraft3d.evaluation.meshes import load_mesh, normalise, transform
from dreamcraft3d.evaluation.metrics import (
    FScore,
    MultiViewReport,
    f_score,
    multi_view_report,
    psnr,
    silhouette_iou,
    unseen_views,
)
from dreamcraft3d.evaluation.render import MeshRender, clay, render_textured
from dreamcraft3d.evaluation.turntable import encode_png, turntable, turntable_image

__all__ = [
    "FScore",
    "MeshRender",
    "MultiViewReport",
    "clay",
    "encode_png",
    "f_score",
    "load_mesh",
    "multi_view_report",
    "normalise",
    "psnr",
    "render_textured",
    "silhouette_iou",
    "transform",
    "turntable",
    "turntable_image",
    "unseen_views",
]
