"""Timing of the mesh kernels: at a twin's size against the twin, at working size against another way to the answer."""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamcraft3d.evaluation.bench import BenchRow, compare
from dreamcraft3d.functional.cameras import Cameras, orbit, project, rays
from dreamcraft3d.functional.mesh import Mesh
from dreamcraft3d.functional.tets import TetExtractor, bcc_grid, marching_tets
from dreamcraft3d.kernels import rasterize as ours
from dreamcraft3d.kernels.mesh_query import MeshQuery, cast_rays, closest_points
from dreamcraft3d.kernels.reference import rasterize as twin

SIZE = 512


def mesh_benchmarks() -> list[BenchRow]:
    """Rasteriser, marching tets and mesh queries (about half a minute on two cores)."""
    small, large = _sphere(5), _sphere(64)
    return [*_against_the_twin(small), *_rasteriser(large), *_marching_tets(), *_queries(_sphere(48))]


def _sphere(n: int) -> Mesh:
    grid, tets = bcc_grid(n)
    mesh = marching_tets(2 * grid - 1, (2 * grid - 1).norm(dim=-1) - 0.7, tets)
    return Mesh(0.7 * mesh.vertices, mesh.faces)


def _draw(module: object, mesh: Mesh, camera: Cameras, size: int, *, backward: bool) -> Callable[[], Tensor]:
    """Rasterise, interpolate four channels and antialias, as a stage does in a step whose mesh is new."""
    attributes = torch.rand(len(mesh.vertices), 4, generator=torch.Generator().manual_seed(0))
    rasterize, interpolate, antialias = (getattr(module, name) for name in ("rasterize", "interpolate", "antialias"))

    def step() -> Tensor:
        vertices = mesh.vertices.clone().requires_grad_(backward)
        clip = project(vertices, camera)
        raster = rasterize(clip, mesh.faces, size)
        image: Tensor = antialias(interpolate(attributes, raster, mesh.faces), raster, clip, mesh.faces)
        if backward:
            image.square().sum().backward()
        return image

    return step


def _against_the_twin(mesh: Mesh) -> list[BenchRow]:
    camera, rows = orbit(0.3, 0.5), []
    for backward in (False, True):
        fast, slow = (_draw(module, mesh, camera, 24, backward=backward) for module in (ours, twin))
        name = f"draw, {'forward and backward' if backward else 'forward'}"
        scene = f"{len(mesh.faces)} faces, 24 px; twin: torch, by triangle and pixel"
        rows.append(compare(name, fast, slow, 2, detail=scene))
    return rows


def _rasteriser(mesh: Mesh) -> list[BenchRow]:
    camera = orbit(0.3, 0.5)
    clip = project(mesh.vertices, camera)
    raster = ours.rasterize(clip, mesh.faces, SIZE)
    origins, directions = (x.reshape(-1, 3) for x in rays(camera, SIZE))
    attributes = torch.rand(len(mesh.vertices), 4, generator=torch.Generator().manual_seed(0))
    picture, topology = ours.interpolate(attributes, raster, mesh.faces), ours.edge_topology(mesh.faces)
    scene = f"{len(mesh.faces)} faces, {SIZE} px"
    forward, both = (_draw(ours, mesh, camera, SIZE, backward=backward) for backward in (False, True))
    return [
        compare(
            "rasterize",
            lambda: ours.rasterize(clip, mesh.faces, SIZE),
            lambda: cast_rays(origins, directions, mesh.vertices, mesh.faces),
            detail=f"{scene}; twin: rays through a hierarchy built for them",
        ),
        compare(
            "interpolate",
            lambda: ours.interpolate(attributes, raster, mesh.faces),
            lambda: twin.interpolate(attributes, raster, mesh.faces),
            detail=f"{scene}, 4 channels; twin: torch",
        ),
        compare(
            "edge topology",
            lambda: ours.edge_topology(mesh.faces),
            lambda: twin.edge_topology(mesh.faces),
            detail=f"{len(mesh.faces)} faces; twin: torch, sorting",
        ),
        compare(
            "antialias",
            lambda: ours.antialias(picture, raster, clip, mesh.faces, topology=topology),
            lambda: ours.antialias(picture, raster, clip, mesh.faces),
            detail=f"{scene}, 4 channels; twin: with the topology built anew",
        ),
        compare("draw, at working size", forward, both, detail=f"{scene}; twin: with the backward pass"),
    ]


def _marching_tets() -> list[BenchRow]:
    grid, tets = bcc_grid(48)
    extractor, distance = TetExtractor(tets, len(grid)), (grid - 0.5).norm(dim=-1)

    def step(extract: Callable[[Tensor, Tensor], Mesh], *, backward: bool) -> Mesh:
        positions, sdf = grid.clone().requires_grad_(), (distance - 0.35).requires_grad_()
        mesh = extract(positions, sdf)
        if backward:
            mesh.vertices.square().sum().backward()
        return mesh

    def whole(positions: Tensor, sdf: Tensor) -> Mesh:
        return marching_tets(positions, sdf, tets)

    mesh = step(extractor, backward=False).detach()
    scene = f"{len(tets)} tets, {len(mesh.faces)} faces"
    return [
        compare(
            f"marching tets, {name}",
            lambda backward=backward: step(extractor, backward=backward),  # type: ignore[misc]
            lambda backward=backward: step(whole, backward=backward),  # type: ignore[misc]
            detail=f"{scene}; twin: the whole grid each time",
        )
        for name, backward in (("forward", False), ("forward and backward", True))
    ]


def _queries(mesh: Mesh) -> list[BenchRow]:
    points = 2 * torch.rand(50_000, 3, generator=torch.Generator().manual_seed(0)) - 1
    near = torch.nn.functional.normalize(points, dim=-1) * (0.49 + 0.05 * points[:, :1])
    prepared, scene = MeshQuery(mesh.vertices, mesh.faces), f"{len(mesh.faces)} faces, 50k points"
    return [
        compare(
            "signed distance, near the surface",
            lambda: prepared.signed_distance(near),
            lambda: prepared.signed_distance(points),
            1,
            detail=f"{scene}; twin: points all over the box",
        ),
        compare(
            "closest points, near the surface",
            lambda: prepared.closest_points(near),
            lambda: closest_points(points, mesh.vertices, mesh.faces),
            1,
            detail=f"{scene}; twin: points all over the box, hierarchy built anew",
        ),
    ]
