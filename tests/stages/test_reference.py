"""Stage 0: every kind of picture file, background removal that finds the object, maps that follow the picture."""

import math
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from dreamcraft3d.config import ReferenceConfig
from dreamcraft3d.errors import InputError, MissingDependencyError
from dreamcraft3d.stages import matting
from dreamcraft3d.stages.pictures import check_picture, read_map, read_picture
from dreamcraft3d.stages.reference import load_reference, save_reference
from dreamcraft3d.workspace import Workspace

CONFIG = ReferenceConfig(size=128)


def ball(height=90, width=120, centre=(40, 70), radii=(20, 30)):
    """(rgb, mask) of a red-and-yellow ellipse, uint8 and bool."""
    y, x = np.mgrid[0:height, 0:width]
    mask = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1.0
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[mask] = (200, 30, 20)
    rgb[mask & (x > centre[1])] = (220, 180, 40)
    return rgb, mask


def rgba_file(path, **kwargs):
    rgb, mask = ball()
    Image.fromarray(np.dstack([rgb, mask.astype(np.uint8) * 255])).save(path, **kwargs)
    return path


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# --- framing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 128, 400])
def test_object_is_centred_and_fills_nine_tenths(tmp_path, size):
    view = load_reference(rgba_file(tmp_path / "a.png"), ReferenceConfig(size=size, elevation=20.0))
    assert view.rgba.shape == (size, size, 4)
    assert view.matting == "alpha channel"
    assert view.elevation == pytest.approx(math.radians(20.0))
    top, bottom, left, right = box_of(view.mask.numpy())
    assert right - left == pytest.approx(0.9 * size, abs=2)
    assert (left + right) / 2 == pytest.approx(size / 2, abs=1)
    assert (top + bottom) / 2 == pytest.approx(size / 2, abs=1)
    assert (bottom - top) / (right - left) == pytest.approx(2 / 3, abs=0.04)


def test_the_frame_says_where_the_canvas_lies_in_the_picture(tmp_path):
    path = rgba_file(tmp_path / "a.png")
    view, opacity = load_reference(path, ReferenceConfig(size=128)), np.asarray(Image.open(path))[..., 3] > 127
    left, top, side = (part * opacity.shape[1] for part in view.frame)
    scale = side / 128.0
    edges = zip((top, top, left, left), box_of(view.mask.numpy()), strict=True)
    found = [offset + scale * edge for offset, edge in edges]
    assert found == pytest.approx(list(box_of(opacity)), abs=1.5 * scale)


def test_rgba_is_premultiplied_and_colour_bleeds_outwards(tmp_path):
    view = load_reference(rgba_file(tmp_path / "a.png"), CONFIG)
    assert (view.rgba[..., :3] <= view.rgba[..., 3:]).all()
    assert ((view.rgba[..., 3] > 0.5) == view.mask).all()
    for x in (0, 10):
        assert torch.allclose(view.colour[64, x], torch.tensor([200, 30, 20]) / 255, atol=0.02)
    assert torch.allclose(view.colour[64, 127], torch.tensor([220, 180, 40]) / 255, atol=0.02)


def test_soft_opacity_is_kept(tmp_path):
    rgb, mask = ball()
    alpha = mask * 255.0
    alpha[mask & (np.arange(120) > 80)[None]] = 170
    Image.fromarray(np.dstack([rgb, alpha.astype(np.uint8)])).save(tmp_path / "a.png")
    view = load_reference(tmp_path / "a.png", CONFIG)
    assert float(view.rgba[64, 110, 3]) == pytest.approx(170 / 255, abs=0.01)


def test_specks_are_not_part_of_the_object(tmp_path):
    rgb, mask = ball()
    mask[2:4, 2:4] = True
    Image.fromarray(np.dstack([rgb, mask.astype(np.uint8) * 255])).save(tmp_path / "a.png")
    clean = load_reference(rgba_file(tmp_path / "b.png"), CONFIG)
    assert torch.equal(load_reference(tmp_path / "a.png", CONFIG).rgba, clean.rgba)


def test_object_cut_off_by_the_edge(tmp_path):
    rgb, mask = ball(centre=(0, 70))
    Image.fromarray(np.dstack([rgb, mask.astype(np.uint8) * 255])).save(tmp_path / "a.png")
    view = load_reference(tmp_path / "a.png", CONFIG)
    top, bottom, _, _ = box_of(view.mask.numpy())
    assert (top + bottom) / 2 == pytest.approx(64, abs=1.5)


# --- file formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.webp", "a.tiff", "a.tif"])
def test_lossless_formats_agree(tmp_path, name):
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    assert np.array_equal(
        read_picture(rgba_file(tmp_path / name, **options)), read_picture(rgba_file(tmp_path / "b.png"))
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "1", "YCbCr"])
def test_pixel_types(tmp_path, mode):
    rgb, mask = ball()
    image = Image.fromarray(np.where(mask[..., None], rgb, 255).astype(np.uint8))
    image = image.convert(mode, palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    picture = read_picture(path)
    assert picture.shape == (90, 120, 4)
    assert (picture[..., 3] == 1.0).all()
    assert picture[0, 0, :3].min() > 0.95
    if mode in ("RGB", "P", "CMYK", "YCbCr"):
        assert np.abs(picture[40, 60, :3] - np.array([200, 30, 20]) / 255).max() < 0.06


def test_palette_with_a_transparent_colour(tmp_path):
    rgb, mask = ball()
    image = Image.fromarray(np.where(mask[..., None], rgb, (0, 255, 0)).astype(np.uint8)).quantize(8)
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    assert iou(read_picture(tmp_path / "a.png")[..., 3] > 0.5, mask) == 1.0


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey(tmp_path, suffix):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert np.abs(picture[..., 0] - values / 65535.0).max() < 1 / 255
    exact = read_map(tmp_path / f"a.{suffix}", 1)
    assert np.abs(exact[..., 0] - values / 65535.0).max() < 1e-6


def test_sixteen_bit_colour(tmp_path):
    rgb, mask = ball()
    image = np.dstack([rgb[..., ::-1], mask.astype(np.uint8) * 255]).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert np.abs(read_picture(tmp_path / "a.png") - image[..., [2, 1, 0, 3]] / 65535.0).max() < 1 / 255


def test_exif_rotation(tmp_path):
    rgb, _ = ball()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated clockwise
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.shape == (120, 90, 4)
    assert np.abs(picture[..., :3] - np.rot90(rgb, -1) / 255.0).mean() < 0.02


def test_colour_profile(tmp_path):
    rgb, _ = ball()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(read_picture(tmp_path / "a.png")[..., :3] - rgb / 255.0).max() < 0.01
    Image.fromarray(rgb).save(tmp_path / "b.png", icc_profile=b"nonsense")
    assert np.abs(read_picture(tmp_path / "b.png")[..., :3] - rgb / 255.0).max() < 0.01


def test_large_pictures_are_reduced(tmp_path):
    Image.new("RGB", (5000, 100), (10, 20, 30)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").shape == (41, 2048, 4)


# --- bad files ------------------------------------------------------------------------------------


def header_only(path, width, height):
    """A PNG file that promises more than it holds."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def bad_files(folder):
    rgba = rgba_file(folder / "good.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is not a picture")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    header_only(folder / "huge.png", 30000, 30000)
    Image.new("RGBA", (64, 64)).save(folder / "clear.png")
    Image.new("RGB", (64, 64), "white").save(folder / "blank.png")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    Image.fromarray(np.dstack([noise, np.full((200, 300), 255, np.uint8)])).save(folder / "noise_rgba.png")
    Image.fromarray(noise).save(folder / "noise.jpg")
    (folder / "cut.jpg").write_bytes((folder / "noise.jpg").read_bytes()[:5000])
    (folder / "cut.png").write_bytes(rgba.read_bytes()[:300])
    (folder / "folder.png").mkdir()
    return {
        "empty.png": "empty",
        "text.png": "not a picture",
        "one.png": "1 x 1",
        "huge.png": "megapixels",
        "clear.png": "transparent",
        "blank.png": "told from its background",
        "noise.png": "noise",
        "noise_rgba.png": "noise",
        "noise.jpg": "noise",
        "cut.jpg": "damaged",
        "cut.png": "damaged|not a picture",
        "folder.png": "folder",
        "missing.png": "no file",
    }


def test_bad_files_are_refused_with_a_remedy(tmp_path):
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=words) as caught:
            load_reference(tmp_path / name, CONFIG)
        assert caught.value.remedy, name
        assert "\n" not in str(caught.value)


def test_header_check_needs_no_decoding(tmp_path):
    header_only(tmp_path / "a.png", 9000, 9000)
    with pytest.raises(InputError, match="9000 x 9000"):
        check_picture(tmp_path / "a.png")
    check_picture(tmp_path / "a.png", max_megapixels=100.0)


# --- background removal ---------------------------------------------------------------------------


def scene(kind):
    """(picture, mask) of a ball in front of something."""
    rng = np.random.default_rng(0)
    rgb, mask = ball(120, 160, (65, 85), (30, 40))
    if kind in ("white", "black"):
        background = np.full(rgb.shape, 255.0 if kind == "white" else 0.0)
    elif kind == "gradient":
        y, x = np.mgrid[0:120, 0:160]
        background = np.dstack([60 + y, 90 + x / 2, 130 + y / 2])
    else:
        background = cv2.resize(rng.normal(size=(15, 20, 3)), (160, 120), interpolation=cv2.INTER_CUBIC) * 30 + 110
    return np.where(mask[..., None], rgb, background).clip(0, 255).astype(np.uint8), mask


@pytest.mark.parametrize(
    ("kind", "method"),
    [("white", "plain background"), ("black", "plain background"), ("gradient", "GrabCut"), ("blobs", "GrabCut")],
)
def test_background_is_removed(tmp_path, kind, method):
    rgb, mask = scene(kind)
    opacity, name = matting.find_object(rgb, "grabcut")
    assert name == method
    assert iou(opacity > 0.5, mask) > 0.92
    again, _ = matting.find_object(rgb, "grabcut")
    assert np.array_equal(opacity, again)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    view = load_reference(tmp_path / "a.png", ReferenceConfig(size=128, matting="grabcut"))
    halo = view.rgba[..., 2][view.mask].max()
    assert halo < 0.3, "the background's blue shows at the rim"


def test_a_grainy_picture_is_not_noise():
    rgb, _ = scene("white")
    grainy = rgb + np.random.default_rng(0).normal(0, 12, rgb.shape)
    assert not matting.is_noise(grainy.clip(0, 255).astype(np.uint8))


def test_rembg_only_with_its_model_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(matting.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    assert matting.rembg_model() is None
    with pytest.raises(MissingDependencyError, match="rembg"):
        matting.find_object(scene("white")[0], "rembg")
    (tmp_path / "u2net.onnx").write_bytes(b"x")
    assert matting.rembg_model() == "u2net"
    (tmp_path / "isnet-general-use.onnx").write_bytes(b"x")
    assert matting.rembg_model() == "isnet-general-use"
    monkeypatch.setattr(matting.importlib.util, "find_spec", lambda name: None)
    assert matting.rembg_model() is None


# --- maps of the user -----------------------------------------------------------------------------


def test_given_mask_goes_before_everything(tmp_path):
    rgb, mask = ball()
    Image.fromarray(rgb).save(tmp_path / "a.png")
    left = mask & (np.arange(120) < 70)[None]
    Image.fromarray(left.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    view = load_reference(tmp_path / "a.png", CONFIG, mask=tmp_path / "mask.png")
    assert view.matting == "given mask"
    assert view.colour[view.mask][:, 1].max() < 0.2, "the yellow half is not in the mask"
    same = load_reference(tmp_path / "a.png", ReferenceConfig(size=128, mask=tmp_path / "mask.png"))
    assert torch.equal(same.rgba, view.rgba)


def test_maps_follow_the_picture(tmp_path):
    rgba_file(tmp_path / "a.png")
    ramp = np.tile(np.linspace(10000, 50000, 120), (90, 1)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "depth.png")
    normal = np.zeros((90, 120, 3), np.uint8)
    normal[:, :70], normal[:, 70:] = (0, 128, 128), (128, 255, 128)
    Image.fromarray(normal).save(tmp_path / "normal.png")
    maps = {"depth": tmp_path / "depth.png", "normal": tmp_path / "normal.png"}
    view = load_reference(tmp_path / "a.png", CONFIG, **maps)
    assert view.depth is not None
    assert view.normal is not None
    row = view.depth[64][view.mask[64]]
    assert (row.diff() >= 0).all()
    assert (row[0], row[-1]) == pytest.approx((0.0, 1.0), abs=0.02)
    assert (view.depth[~view.mask] == 0).all()
    assert torch.allclose(view.normal[64, 20], torch.tensor([-1.0, 0.0, 0.0]), atol=0.02)
    assert torch.allclose(view.normal[64, 100], torch.tensor([0.0, 1.0, 0.0]), atol=0.02)
    turned = load_reference(
        tmp_path / "a.png", ReferenceConfig(size=128, depth_larger="nearer", normal_axes="directx"), **maps
    )
    assert turned.depth is not None
    assert turned.normal is not None
    assert torch.allclose(turned.depth[view.mask], 1 - view.depth[view.mask], atol=1e-5)
    assert torch.allclose(turned.normal[64, 100], torch.tensor([0.0, -1.0, 0.0]), atol=0.02)


def test_maps_of_another_shape_are_refused(tmp_path):
    rgba_file(tmp_path / "a.png")
    Image.new("L", (240, 180)).save(tmp_path / "good.png")
    Image.new("L", (100, 100)).save(tmp_path / "bad.png")
    assert load_reference(tmp_path / "a.png", CONFIG, depth=tmp_path / "good.png").depth is not None
    with pytest.raises(InputError, match="another shape"):
        load_reference(tmp_path / "a.png", CONFIG, depth=tmp_path / "bad.png")


def test_what_is_saved_reads_back_as_the_same_view(tmp_path):
    view = load_reference(rgba_file(tmp_path / "a.png"), CONFIG)
    save_reference(view, Workspace(tmp_path / "out"))
    again = load_reference(tmp_path / "out" / "reference.png", CONFIG)
    assert (again.rgba - view.rgba).abs().mean() < 0.01
    assert (tmp_path / "out" / "mask.png").exists()
