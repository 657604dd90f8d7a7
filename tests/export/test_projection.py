"""The reference image becomes the texture where it shows the surface, and only there."""

import numpy as np
import pytest
import torch

import shapes
from dreamcraft3d.config import ProjectionConfig
from dreamcraft3d.evaluation.render import render_textured
from dreamcraft3d.export import TexturedMesh, UnwrappedMesh, bake, prepare, project_image
from dreamcraft3d.export.texels import neighbours, texels_of
from dreamcraft3d.functional.cameras import orbit
from dreamcraft3d.functional.mesh import Mesh

SIZE = 256
CAMERA = orbit(0.2, 0.0)
GREY = 0.4


def waves(points: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.3 * torch.sin(14.0 * points)


def grey(points: torch.Tensor) -> torch.Tensor:
    return torch.full_like(points, GREY)


def picture(mesh: Mesh, colour: torch.Tensor, size: int = 512) -> torch.Tensor:
    return render_textured(TexturedMesh(mesh.vertices, mesh.faces, vertex_colours=colour), CAMERA, size).rgba[0]


@pytest.fixture(scope="module")
def ball() -> UnwrappedMesh:
    return prepare(shapes.sphere(0.5, subdivisions=4), target_faces=5120, texture_size=SIZE)


def cosines(unwrapped: UnwrappedMesh) -> tuple[np.ndarray, torch.Tensor]:
    """The texels of a ball around the origin, and the cosine at which the camera sees each."""
    texels = texels_of(unwrapped, SIZE)
    points = torch.from_numpy(texels.points).float()
    towards = torch.nn.functional.normalize(CAMERA.c2w[0, :3, 3] - points, dim=-1)
    return texels.index, (torch.nn.functional.normalize(points, dim=-1) * towards).sum(-1)


def test_seen_texels_are_the_image_and_the_far_side_keeps_the_field(ball: UnwrappedMesh) -> None:
    image, field = picture(ball.mesh, waves(ball.vertices)), bake(ball, grey)
    result = project_image(ball, image, CAMERA, field, ProjectionConfig(enabled=True))
    index, cosine = cosines(ball)
    points = torch.from_numpy(texels_of(ball, SIZE).points).float()
    colour, weight = result.texture.reshape(-1, 3)[index], result.weight.reshape(-1)[index]
    assert (weight[cosine > 0.35] == 1.0).float().mean() > 0.995
    assert (weight[cosine < 0.05] == 0.0).all()
    assert (colour - waves(points))[weight == 1.0].abs().mean() < 0.01
    assert (colour[cosine < -0.8] - GREY).abs().max() < 0.02


def test_the_weight_is_what_the_camera_sees_and_not_what_lies_behind() -> None:
    plate, wall = shapes.box((0.3, -0.15, -0.15), (0.35, 0.15, 0.15)), shapes.box((-0.3, -0.5, -0.5), (-0.2, 0.5, 0.5))
    unwrapped = prepare(shapes.union(plate, wall), target_faces=400, texture_size=SIZE)
    red = torch.tensor([0.9, 0.1, 0.1])
    colour = torch.where(unwrapped.vertices[:, :1] > 0.0, red, torch.tensor([0.1, 0.1, 0.9]))
    result = project_image(
        unwrapped, picture(unwrapped.mesh, colour), CAMERA, bake(unwrapped, grey), ProjectionConfig(enabled=True)
    )
    texels = texels_of(unwrapped, SIZE)
    front = (texels.points[:, 0] > -0.201) & (texels.points[:, 0] < 0.0)
    weight, painted = (image.reshape(SIZE**2, -1)[texels.index] for image in (result.weight, result.texture))
    shadow = front & (np.abs(texels.points[:, 1]) < 0.1) & (np.abs(texels.points[:, 2] + 0.11) < 0.1)
    assert shadow.sum() > 100
    assert weight[shadow].max() == 0.0
    beside = np.abs(np.abs(texels.points[:, 1]) - 0.3) < 0.1
    assert weight[front & beside & (np.abs(texels.points[:, 2]) < 0.4)].min() == 1.0
    assert painted[front, 0].max() < GREY + 0.02  # nothing of the red plate gets onto the wall


@pytest.mark.parametrize("scale", [0.97, 1.0, 1.03])
def test_no_background_gets_in_when_the_outlines_disagree(ball: UnwrappedMesh, scale: float) -> None:
    colour = torch.tensor([0.8, 0.3, 0.2])
    image = picture(Mesh(scale * ball.vertices, ball.faces), colour.expand(len(ball.vertices), 3))
    image[..., :3] += (1.0 - image[..., 3:]) * image[..., 3:]  # a white fringe, as left by careless matting
    field = bake(ball, lambda points: colour.expand(len(points), 3))
    result = project_image(ball, image, CAMERA, field, ProjectionConfig(enabled=True))
    assert (result.texture - colour).abs().max() < 0.02


def test_no_seam_stays_between_the_two_parts_nor_between_charts(ball: UnwrappedMesh) -> None:
    """The field was painted darker, and smeared where it was seen at a slant."""
    image = picture(ball.mesh, torch.full_like(ball.vertices, 0.7))
    eye = torch.nn.functional.normalize(CAMERA.c2w[0, :3, 3], dim=0)
    field = bake(ball, lambda x: torch.where((x @ eye)[:, None] > 0.066, 0.7, 0.4).expand(-1, 3))  # the ball's horizon
    result = project_image(ball, image, CAMERA, field, ProjectionConfig(enabled=True))
    texels = texels_of(ball, SIZE)
    pairs = torch.from_numpy(neighbours(ball, texels))
    before, after = (t.reshape(-1, 3)[texels.index] for t in (field, result.texture))
    assert (before[pairs[:, 0]] - before[pairs[:, 1]]).abs().max() > 0.25
    assert (after[pairs[:, 0]] - after[pairs[:, 1]]).abs().max() < 0.04
    index, cosine = cosines(ball)
    assert (result.texture.reshape(-1, 3)[index][cosine < -0.9] - 0.4).abs().max() < 0.02


def test_switched_off_the_field_stays(ball: UnwrappedMesh) -> None:
    field = bake(ball, waves)
    result = project_image(
        ball, picture(ball.mesh, waves(ball.vertices)), CAMERA, field, ProjectionConfig(enabled=False)
    )
    assert torch.equal(result.texture, field)
    assert (result.weight == 0.0).all()
