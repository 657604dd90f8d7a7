"""Cameras on a sphere around the object, their rays and their rasteriser matrices.

Conventions (DreamCraft3D release, method section 1): right-handed world, z up; the reference camera sits on +x and
looks at the origin, so world +y is image-right in the reference view. Camera axes are OpenGL's: x right, y up, looking
along -z. Pixel (column i, row j) has its centre at (i + 1/2, j + 1/2); row 0 is the top of the image. Images are
square.

Letters: e elevation, a azimuth (counter-clockwise seen from above), r distance, phi vertical field of view; radians
here.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

DISTANCE = 3.8
FOVY = math.radians(20.0)
HALF_WIDTH = DISTANCE * math.tan(0.5 * FOVY)
"""Half the side of what a camera sees at the origin, world units; the same for every field of view."""


@dataclass(frozen=True)
class Cameras:
    """A batch of B cameras that look at the origin.

    Attributes:
        c2w: camera-to-world matrices, columns [right, up, -forward | position].
        elevation, azimuth: radians. distance: world units. fovy: vertical field of view, radians.
    """

    c2w: Float[Tensor, "B 4 4"]
    elevation: Float[Tensor, " B"]
    azimuth: Float[Tensor, " B"]
    distance: Float[Tensor, " B"]
    fovy: Float[Tensor, " B"]

    def __len__(self) -> int:
        return int(self.c2w.shape[0])

    def __getitem__(self, index: slice | Tensor) -> "Cameras":
        return Cameras(
            self.c2w[index], self.elevation[index], self.azimuth[index], self.distance[index], self.fovy[index]
        )

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device."""
        fields = (self.c2w, self.elevation, self.azimuth, self.distance, self.fovy)
        return Cameras(*(field.to(device) for field in fields))

    @property
    def w2c(self) -> Float[Tensor, "B 4 4"]:
        """World-to-camera matrices: the rigid inverse of `c2w`."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        inverse = torch.zeros_like(self.c2w)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3:] = -rotation @ self.c2w[:, :3, 3:]
        inverse[:, 3, 3] = 1.0
        return inverse


def orbit(
    elevation: Float[Tensor, " B"] | float,
    azimuth: Float[Tensor, " B"] | float,
    *,
    distance: Float[Tensor, " B"] | float = DISTANCE,
    fovy: Float[Tensor, " B"] | float = FOVY,
) -> Cameras:
    """Cameras at p = r (cos e cos a, cos e sin a, sin e), looking at the origin with z up.

    Scalars and tensors of B values mix freely; all angles in radians. At e = +-pi/2 the view direction is parallel to z
    and image-up is undefined: elevations are clamped to +-89.9 degrees.

    >>> orbit(0.0, 0.0).c2w[0, :3, 0]   # right of the reference camera is world +y
    tensor([0., 1., 0.])
    """
    limit = math.radians(89.9)
    values = (elevation, azimuth, distance, fovy)
    device = next((v.device for v in values if isinstance(v, Tensor)), None)
    filled = (v if isinstance(v, Tensor) else torch.full((1,), v, device=device) for v in values)
    tensors = torch.broadcast_tensors(*(v.to(torch.float32).reshape(-1) for v in filled))
    e, a, r, phi = (t.clone() for t in tensors)
    e = e.clamp(-limit, limit)
    toward_camera = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=-1)
    up = torch.linalg.cross(toward_camera, right)
    c2w = torch.zeros(len(e), 4, 4, dtype=e.dtype, device=e.device)
    c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 2] = right, up, toward_camera
    c2w[:, :3, 3] = toward_camera * r[:, None]
    c2w[:, 3, 3] = 1.0
    return Cameras(c2w, e, a, r, phi)


def framing_distance(fovy: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Distance at which a camera of this field of view (radians) sees HALF_WIDTH on each side of the origin.

    >>> framing_distance(torch.tensor([FOVY]))
    tensor([3.8000])
    """
    return HALF_WIDTH / torch.tan(0.5 * fovy)


def framing_cameras(elevation: Float[Tensor, " N"], azimuth: Float[Tensor, " N"], fovy: Float[Tensor, " N"]) -> Cameras:
    """Cameras that see the same width at the origin, whatever their field of view (radians)."""
    return orbit(elevation, azimuth, distance=framing_distance(fovy), fovy=fovy)


def projection(cameras: Cameras, *, near: float = 0.1, far: float = 100.0) -> Float[Tensor, "B 4 4"]:
    """OpenGL perspective matrices of square images, y up in clip space (the rasteriser maps y = +1 to row 0)."""
    matrix = torch.zeros_like(cameras.c2w)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1.0 / torch.tan(0.5 * cameras.fovy)
    matrix[:, 2, 2] = -(far + near) / (far - near)
    matrix[:, 2, 3] = -2.0 * far * near / (far - near)
    matrix[:, 3, 2] = -1.0
    return matrix


def mvp(cameras: Cameras, *, near: float = 0.1, far: float = 100.0) -> Float[Tensor, "B 4 4"]:
    """World to clip space: clip = v_h @ mvp^T for homogeneous row vectors v_h."""
    return projection(cameras, near=near, far=far) @ cameras.w2c


def project(vertices: Float[Tensor, "V 3"], cameras: Cameras) -> Float[Tensor, "B V 4"]:
    """Clip coordinates of world points seen by each camera; differentiable in the vertices."""
    homogeneous = torch.cat([vertices, torch.ones_like(vertices[:, :1])], dim=-1)
    return homogeneous @ mvp(cameras).transpose(1, 2)


def rays(cameras: Cameras, size: int) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
    """Origins and unit directions through the pixel centres of `size` x `size` images (row 0 at the top)."""
    focal = 0.5 * size / torch.tan(0.5 * cameras.fovy)
    centre = torch.arange(size, dtype=torch.float32, device=focal.device) + 0.5 - 0.5 * size
    y, x = torch.meshgrid(-centre, centre, indexing="ij")
    x, y = x[None] / focal[:, None, None], y[None] / focal[:, None, None]
    directions = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    directions = torch.einsum("bij,bhwj->bhwi", cameras.c2w[:, :3, :3], directions)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return cameras.c2w[:, None, None, :3, 3].expand_as(directions).contiguous(), directions
