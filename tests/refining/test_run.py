"""A whole refinement: against the exact prior it finds a known texture, and nothing else of an image changes."""

import json

import numpy as np
import pytest
from PIL import Image

import soups
from dreamcraft3d.errors import Cancelled
from dreamcraft3d.evaluation.refining import TrueLook, evaluate_refine
from dreamcraft3d.presets import configure
from dreamcraft3d.priors.oracle import OraclePrior
from dreamcraft3d.priors.residency import FixedPriors
from dreamcraft3d.progress import Progress, StepDone, Warned
from dreamcraft3d.refining.refusals import EmptyMask, MeshTooDense, RefineRefused
from dreamcraft3d.refining.run import refine
from dreamcraft3d.refining.surface import surface_of
from dreamcraft3d.refining.tiles import Picture, decode, encode
from dreamcraft3d.workspace import Workspace
from tiny import SETTINGS

TINY = {
    **{key: value for key, value in SETTINGS.items() if key.startswith(("texture", "oracle"))},
    "reference.size": 64,
    "texture.steps": 10,
    "texture.fit_steps": 10,
}


def tiny(**settings):
    return configure("oracle", {**TINY, **{key.replace("__", "."): value for key, value in settings.items()}})


def symmetric(places):
    """The same on both mirrored halves."""
    return soups.waves(np.abs(places) * [1, 0, 0] + places * [0, 1, 1])


def exact(request, size: int = 32) -> FixedPriors:
    return FixedPriors(OraclePrior(TrueLook(request, surface_of(request, two_sided=True)), image_size=size))


FILES = {
    "8-bit": lambda: soups.png(soups.noise(32, 32, 4)),
    "16-bit": lambda: soups.png(soups.noise(32, 32, 3, kind=np.uint16)),
    "half": lambda: encode(
        Picture(np.random.default_rng(0).random((32, 32, 4)).astype(np.float16).astype(np.float32), True)
    )[0],
    "grey": lambda: soups.png(soups.noise(32, 32, 1)[..., 0]),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("space", ["sRGB", "Non-Color"])
def test_strength_0_is_pixel_identical(tmp_path, name, space):
    data = FILES[name]()
    request = soups.request(
        soups.cube(), {0: data}, size=32, target={"colourspace": space}, fingerprint="f1", strength=0.0
    )
    result = refine(request, tiny(refine__strength=0.0), Workspace(tmp_path / "out"), Progress())
    (image,) = result.images
    assert image.path.read_bytes() == data
    assert not decode(image.mask.read_bytes()).pixels.any()
    report = json.loads((tmp_path / "out" / "result.json").read_text())
    assert report["fingerprint"] == "f1" and report["files"][0]["painted"] == 0.0


def test_a_run_changes_what_it_says_and_nothing_else(tmp_path):
    """Two slots in one coordinate space; only one is painted. Its depth, alpha and the texels around stay."""
    mesh = soups.together(soups.sphere(12, 24, slot=0), soups.sphere(12, 24, centre=(3, 0, 0), slot=1))
    before = soups.noise(64, 64, 4, kind=np.uint16)
    before[..., 3] |= 1
    other = soups.png(soups.noise(64, 64))
    request = soups.request(mesh, {0: soups.png(before)}, files=[other], fingerprint="mesh-7")
    result = refine(request, tiny(), Workspace(tmp_path / "out"), Progress(), shelf=exact(request))
    assert {path.name for path in (tmp_path / "out").glob("image_*")} == {"image_0_base_color_1001.png"}
    after, mask = (np.asarray(decode(p.read_bytes()).pixels) for p in (result.images[0].path, result.images[0].mask))
    assert after.dtype == np.uint16 and (after[..., 3] == before[..., 3]).all()
    touched = mask[..., 0] >= 128
    assert (after[~touched] == before[~touched]).all()
    assert (after[touched] != before[touched]).any(axis=-1).mean() > 0.95
    report = json.loads((tmp_path / "out" / "result.json").read_text())
    (file,) = report["files"]
    assert report["fingerprint"] == "mesh-7" and report["seed"] == 0 and report["priors"] == ["oracle"]
    assert file["slot"] == 0 and file["bit_depth"] == 16 and file["painted"] > 0.5
    assert report["mesh"]["texels_per_metre"]["median"] > 5
    assert {"dreamcraft3d", "torch"} <= report["versions"].keys()
    assert str(tmp_path) not in json.dumps(report)


@pytest.mark.slow
def test_cancelled_and_resumed_the_result_is_the_same(tmp_path):
    request = soups.request(soups.cube(), {0: soups.png(soups.noise(48, 48))})

    def stop(event):
        if isinstance(event, StepDone) and event.step == 4:
            progress.cancel()

    progress = Progress((stop,))
    with pytest.raises(Cancelled):
        refine(request, tiny(), Workspace(tmp_path / "a"), progress, shelf=exact(request))
    assert not (tmp_path / "a" / "result.json").exists()
    resumed = refine(request, tiny(), Workspace(tmp_path / "a"), Progress(), shelf=exact(request))
    whole = refine(request, tiny(), Workspace(tmp_path / "b"), Progress(), shelf=exact(request))
    assert resumed.images[0].path.read_bytes() == whole.images[0].path.read_bytes()
    events = []
    refine(request, tiny(), Workspace(tmp_path / "b"), Progress((events.append,)), shelf=exact(request))
    assert not any(isinstance(event, StepDone) for event in events)


@pytest.mark.slow
def test_a_picture_and_a_prompt(tmp_path):
    """The reference comes from a picture file; a prompt that no prior reads is said to be of no use."""
    request = soups.request(soups.sphere(12, 24), {0: soups.png(soups.noise(32, 32))})
    red = np.zeros((64, 64, 4), np.uint8)
    y, x = np.mgrid[0:64, 0:64]
    red[(x - 32) ** 2 + (y - 32) ** 2 < 600] = (255, 0, 0, 255)
    path = tmp_path / "red.png"
    Image.fromarray(red).save(path)
    from dreamcraft3d.refining.request import ReferencePicture, digest

    data = path.read_bytes()
    request = soups.request(
        soups.sphere(12, 24),
        {0: soups.png(np.full((64, 64, 3), 128, np.uint8))},
        files=[data],
        reference=ReferencePicture(sha256=digest(data)),
        prompt="a red ball",
    )
    events: list[object] = []
    config = tiny(texture__steps=40, texture__guidance__view_weight=0.0)
    result = refine(request, config, Workspace(tmp_path / "out"), Progress((events.append,)), shelf=FixedPriors(None))
    assert any(isinstance(event, Warned) and "prompt" in event.text for event in events)
    image = decode(result.images[0].path.read_bytes()).pixels.astype(int)
    front = image[16:48, 28:36]  # the seam is at the back, so the front is in the middle
    assert front[..., 0].mean() > 200 and front[..., 1].mean() < 60
    assert (tmp_path / "out" / "reference.png").exists()


def test_refusals_write_nothing(tmp_path):
    out = tmp_path / "out"
    image = soups.png(soups.noise(16, 16))
    unpainted = soups.request(soups.cube(paint=False), {0: image})
    with pytest.raises(EmptyMask) as caught:
        refine(unpainted, tiny(), Workspace(out), Progress())
    assert caught.value.reason == "E_EMPTY_MASK"
    with pytest.raises(MeshTooDense) as dense:
        refine(soups.request(soups.cube(), {0: image}), tiny(refine__max_triangles=10), Workspace(out), Progress())
    assert dense.value.reason == "E_TOO_DENSE"
    with pytest.raises(RefineRefused, match="colour space"):
        strange = soups.request(soups.cube(), {0: image}, target={"colourspace": "ACEScg"})
        refine(strange, tiny(), Workspace(out), Progress())
    assert not out.exists()


def test_tiles_with_and_without_an_image(tmp_path):
    parts = [soups.card(0.5 * k, box=(k + 0.1, 0.1, k + 0.9, 0.9)) for k in range(3)]
    images = {1001: soups.png(soups.noise(32, 32)), 1002: soups.png(soups.noise(16, 64))}
    request = soups.request(soups.together(*parts), {0: images})
    events: list[object] = []
    result = refine(request, tiny(), Workspace(tmp_path), Progress((events.append,)), shelf=FixedPriors(None))
    assert [(image.tile, decode(image.path.read_bytes()).pixels.shape[:2]) for image in result.images] == [
        (1001, (32, 32)),
        (1002, (16, 64)),
    ]
    assert any(isinstance(event, Warned) and "1003" in event.text for event in events)


# --- against the exact prior --------------------------------------------------------------------------


HALF = {"texture.render_size": 128, "texture.reference_size": 128, "reference.size": 256}
"""Of the preset's sizes, for images of 128 texels: a third of the time."""


@pytest.mark.slow
def test_a_sphere_gets_a_known_texture(tmp_path):
    mesh = soups.sphere()
    truth = soups.request(mesh, {0: soups.painted(mesh, 0, 128, soups.waves)})
    _, (score,) = evaluate_refine(truth, configure("oracle", HALF), Workspace(tmp_path), Progress())
    assert score.psnr >= 30.0 and score.changed == 0 and score.painted > 0.85


@pytest.mark.slow
def test_five_slots_with_mirrored_halves_get_their_known_textures(tmp_path):
    mesh = soups.five_slots()
    truth = soups.request(mesh, {k: soups.painted(mesh, k, 128, symmetric) for k in range(5)})
    _, scores = evaluate_refine(truth, configure("oracle", HALF), Workspace(tmp_path), Progress())
    assert [score.slot for score in scores] == [0, 1, 2, 3, 4]
    for score in scores:
        assert score.psnr >= 30.0 and score.changed == 0, score


@pytest.mark.slow
def test_a_thin_card_keeps_two_colours(tmp_path):
    """Red in front, blue behind, at the same place: without being told apart they would both become purple."""
    front = soups.card(0.0, box=(0.02, 0.02, 0.48, 0.98))
    mesh = soups.together(front, soups.card(0.0, back=True, box=(0.52, 0.02, 0.98, 0.98)))
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0], image[:, 32:, 2] = 255, 255
    truth = soups.request(mesh, {0: soups.png(image)})
    small = {"oracle_size": 64, "texture.render_size": 64, "texture.reference_size": 64, "reference.size": 64}
    result, (score,) = evaluate_refine(truth, configure("oracle", small), Workspace(tmp_path), Progress())
    assert score.psnr > 25.0, score
    assert result.report["mesh"]["thin"] == len(mesh.tri_vertex)
