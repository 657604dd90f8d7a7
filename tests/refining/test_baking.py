"""Field to texels: every painted texel gets the colour of its own place, and nothing else changes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import soups
from dreamcraft3d.config import GenerateConfig
from dreamcraft3d.presets import configure
from dreamcraft3d.refining.baking import FILLED, OVERLAP, PAINTED, UNSEEN, BakedTile, Painter, bake_tile
from dreamcraft3d.refining.plan import plan_of
from dreamcraft3d.refining.refusals import EmptyMask
from dreamcraft3d.refining.request import RefineRequest
from dreamcraft3d.refining.surface import surface_of

MATRICES = {
    "identity": np.eye(4),
    "mirrored": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "sheared": np.array([[1.0, 0.4, 0, 3], [0, 2.0, 0.3, -5], [0, 0, 0.7, 1], [0, 0, 0, 1]]),
    "small": np.diag([1e-3, 1e-3, 1e-3, 1.0]),
    "large": np.diag([1e3, 1e3, 1e3, 1.0]),
}


def place_as_colour(x: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.5 * x


def bake(request: RefineRequest, settings: dict | None = None, **options) -> list[tuple[BakedTile, np.ndarray]]:
    """Baked tiles, each with the pixels that were there before."""
    config: GenerateConfig = configure("preview", settings)
    plan = plan_of(request, config)
    surface = surface_of(request, two_sided=False)
    given_ = {
        "after": place_as_colour,
        "before": None,
        "strength": 1.0,
        "seen": None,
        "padding": None,
        "average": False,
    }
    painter = Painter(surface, **{**given_, **options})
    return [
        (bake_tile(c, plan.pictures[c.target.slot, c.number], painter), plan.pictures[c.target.slot, c.number].pixels)
        for c in plan.coverages
    ]


def expected_places(request: RefineRequest, size: int, texels: np.ndarray) -> np.ndarray:
    """The world position of each texel's centre by brute force, in the frame that is painted; nan if nowhere."""
    soup, surface = request.soup, surface_of(request, two_sided=False)
    corners = soup.tri_uv.astype(np.float64) * [size, -size] + [0, size]
    world = soup.position.astype(np.float64) @ surface.matrix[:3, :3].T + surface.matrix[:3, 3]
    places = np.full((len(texels), 3), np.nan)
    for n, (row, column) in enumerate(texels):
        p = np.array([column + 0.5, row + 0.5])
        for t in range(len(corners)):
            a, b, c = corners[t]
            m = np.stack([b - a, c - a], axis=1)
            if abs(np.linalg.det(m)) < 1e-9:
                continue
            v, w = np.linalg.solve(m, p - a)
            if v >= 0 and w >= 0 and v + w <= 1:
                places[n] = np.array([1 - v - w, v, w]) @ world[soup.tri_vertex[t]]
                break
    return places


@pytest.mark.parametrize("name", MATRICES)
def test_texels_get_the_colour_of_their_own_place(name):
    size = 96
    request = soups.request(
        soups.cube(), {0: soups.png(soups.noise(size, size, kind=np.uint16))}, matrix=MATRICES[name]
    )
    ((tile, _),) = bake(request)
    rng = np.random.default_rng(0)
    texels = rng.permutation(np.argwhere(tile.mask == PAINTED))[:200]
    colours = tile.picture.pixels[texels[:, 0], texels[:, 1]] / 65535.0
    places = expected_places(request, size, texels)
    texel_length = 1.2 / (0.27 * size)  # a side of the cube spans 0.27 of the image
    assert np.abs(2.0 * colours - 1.0 - places).max() < 0.5 * texel_length * max(1.0, 0 if name != "sheared" else 3.0)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", ["STRAIGHT", "PREMUL", "CHANNEL_PACKED"])
def test_nothing_outside_the_mask_changes_and_alpha_never(kind, mode):
    before = soups.noise(64, 80, 4, kind=kind)
    before[20:40, :, 3] = 0
    mesh = soups.cube(paint=[True] * 16 + [False] * 16)
    ((tile, _),) = bake(soups.request(mesh, {0: soups.png(before)}, target={"alpha_mode": mode}))
    after = tile.picture.pixels
    assert (after[..., 3] == before[..., 3]).all()
    assert (after[tile.mask < FILLED] == before[tile.mask < FILLED]).all()
    assert (tile.mask == PAINTED).any() and (tile.mask == FILLED).any()
    clear = before[..., 3] == 0
    if mode != "CHANNEL_PACKED":
        assert (after[clear] == before[clear]).all()


def test_the_gutter_is_as_wide_as_asked_and_never_enters_other_faces():
    mesh = soups.together(
        soups.card(0.0, box=(0.1, 0.1, 0.45, 0.9)), soups.card(0.5, box=(0.5, 0.1, 0.9, 0.9), paint=False)
    )
    before = soups.noise(100, 100)
    ((tile, _),) = bake(soups.request(mesh, {0: soups.png(before)}), padding=8)
    filled = np.argwhere(tile.mask == FILLED)
    assert filled[:, 1].min() == 2 and filled[:, 0].min() == 2 and filled[:, 0].max() == 97
    assert filled[:, 1].max() <= 47  # half-way to the other card: what is nearer to that is not ours
    assert (tile.picture.pixels[:, 50:] == before[:, 50:]).all()
    ((tile, _),) = bake(soups.request(mesh, {0: soups.png(before)}), padding=0)
    assert not (tile.mask == FILLED).any()


@pytest.mark.parametrize("mip", [0, 1, 2, 3])
def test_no_gutter_colour_is_seen_down_to_the_third_mip_level(mip):
    """Painted white on a black and red checker: what bilinear filtering reads inside the island stays white."""
    checker = np.zeros((256, 256, 3), np.uint8)
    checker[..., 0] = 255 * (np.indices((256, 256)).sum(0) % 2)
    mesh = soups.card(0.0, box=(0.25, 0.25, 0.75, 0.75))
    ((tile, _),) = bake(soups.request(mesh, {0: soups.png(checker)}), after=torch.ones_like)
    image = tile.picture.pixels.astype(float)
    for _ in range(mip):
        image = image.reshape(image.shape[0] // 2, 2, -1, 2, 3).mean(axis=(1, 3))
    size = len(image)
    uv = np.random.default_rng(0).uniform(0.25, 0.75, (2000, 2)) * size - 0.5
    low = np.floor(uv).astype(int)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert (image[low[:, 0] + corner[0], low[:, 1] + corner[1]] == 255).all()


def test_average_takes_the_mean_of_the_faces_that_share_a_texel():
    mesh = soups.together(soups.card(-1.0), soups.card(1.0))
    request = soups.request(mesh, {0: soups.png(soups.noise(32, 32))})
    by_depth = lambda x: (x[:, :1] > 0).float().expand(-1, 3)  # noqa: E731 - the front is white, the back black
    ((owner, _),) = bake(request, {"refine.overlap": "owner"}, after=by_depth)
    ((mean, _),) = bake(request, {"refine.overlap": "average"}, after=by_depth, average=True)
    assert (owner.picture.pixels[owner.mask == OVERLAP] == 255).all()
    assert (mean.picture.pixels[mean.mask == OVERLAP] == 128).all()


def test_what_no_view_shows_is_kept():
    before = soups.noise(64, 64)
    upper = lambda triangle, x: (x[:, 2] > 0).numpy()  # noqa: E731
    ((tile, _),) = bake(soups.request(soups.card(0.0), {0: soups.png(before)}), seen=upper)
    assert (tile.picture.pixels[tile.mask == UNSEEN] == before[tile.mask == UNSEEN]).all()
    rows = np.argwhere(tile.mask == UNSEEN)[:, 0]
    assert rows.min() >= 31 and (tile.mask == PAINTED).sum() == pytest.approx((tile.mask == UNSEEN).sum(), rel=0.05)


@pytest.mark.parametrize("strength", [0.25, 0.75])
def test_detail_finer_than_the_field_survives_in_part(strength):
    before = soups.noise(64, 64)
    field = lambda value: lambda x: torch.full_like(x, value)  # noqa: E731
    request = soups.request(soups.card(0.0), {0: soups.png(before)})
    ((tile, _),) = bake(request, after=field(0.5), before=field(0.5), strength=strength)
    painted = tile.mask == PAINTED
    wanted = 127.5 + (1 - strength) * (before[painted] - 127.5)
    assert np.abs(tile.picture.pixels[painted] - wanted).max() <= 1.0


def random_mesh(seed: int):
    """A patch of noise with its own islands, some faces degenerate, some unpainted, some in another slot."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(2, 6, 2)
    mesh = soups.grid(lambda s, t: (s, t, 0.1 * np.sin(9 * s)), int(rows), int(columns), box=(0.1, 0.2, 0.9, 0.8))
    mesh.position[rng.integers(len(mesh.position))] = mesh.position[0]
    mesh.tri_paint[:] = rng.random(len(mesh.tri_paint)) < 0.7
    mesh.tri_slot[:] = rng.random(len(mesh.tri_slot)) < 0.3
    mesh.tri_paint[0], mesh.tri_slot[0] = True, 0
    return mesh


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_on_any_mesh_only_painted_texels_change_and_they_get_their_place(seed):
    mesh, size = random_mesh(seed), 24
    before = soups.noise(size, size, 4, seed=seed % 1000, kind=np.uint16)
    before[..., 3] = np.maximum(before[..., 3], 1)
    request = soups.request(mesh, {0: soups.png(before)}, matrix=MATRICES["mirrored" if seed % 2 else "identity"])
    try:
        ((tile, _),) = bake(request)
    except EmptyMask:  # every face of the slot is smaller than a texel
        return
    after = tile.picture.pixels
    assert (after[tile.mask < FILLED] == before[tile.mask < FILLED]).all()
    assert (after[..., 3] == before[..., 3]).all()
    texels = np.argwhere(tile.mask == PAINTED)[:5]
    places = expected_places(request, size, texels)
    colours = after[texels[:, 0], texels[:, 1], :3] / 65535.0
    assert np.nanmax(np.abs(2.0 * colours - 1.0 - places), initial=0.0) < 1.5 / size
