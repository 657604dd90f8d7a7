"""Images come through without losing a bit."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

import soups
from dreamcraft3d.refining.refusals import RequestBroken, UnknownColourspace
from dreamcraft3d.refining.request import Target, Tile
from dreamcraft3d.refining.tiles import (
    Picture,
    check_colourspace,
    decode,
    display_of,
    encode,
    opacity_of,
    stored_of,
)


def target(**options) -> Target:
    return Target(slot=0, tiles=(Tile(width=1, height=1),), **options)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_png_of_8_and_16_bits(kind, channels):
    pixels = soups.noise(9, 7, channels, kind=kind)
    picture = decode(soups.png(pixels))
    assert picture.pixels.dtype == kind and (picture.pixels == pixels).all()
    data, suffix = encode(picture)
    assert suffix == ".png" and (decode(data).pixels == pixels).all()


@pytest.mark.parametrize("half", [True, False])
def test_exr_keeps_its_floats(half):
    pixels = np.random.default_rng(0).normal(size=(9, 7, 4)).astype(np.float16).astype(np.float32)
    data, suffix = encode(Picture(pixels, half))
    again = decode(data)
    assert suffix == ".exr" and again.half is half
    assert (again.pixels == pixels).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA"])
def test_odd_modes_show_what_pillow_shows(mode):
    image = Image.fromarray(soups.noise(20, 20)).convert("RGBA").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    picture = decode(buffer.getvalue())
    wanted = np.asarray(image.convert("RGBA"))
    assert (picture.pixels[..., :3] == wanted[..., :3]).all()


@pytest.mark.parametrize("data", [b"", b"hello", soups.png(soups.noise(9, 9))[:60], b"\x89PNG\r\n\x1a\n"])
def test_damaged_images_are_refused(data):
    with pytest.raises(RequestBroken):
        decode(data)


@pytest.mark.parametrize("space", ["sRGB", "Non-Color", "Linear Rec.709"])
@pytest.mark.parametrize("mode", ["STRAIGHT", "PREMUL", "CHANNEL_PACKED", "NONE"])
def test_display_values_are_stored_so_that_they_show_again(space, mode):
    wanted = target(colourspace=space, alpha_mode=mode)
    pixels = soups.noise(16, 16, 4, kind=np.uint16)
    pixels[..., 3] = np.maximum(pixels[..., 3], 20000)
    picture = Picture(pixels)
    display = np.random.default_rng(1).random((256, 3)).astype(np.float32)
    stored = stored_of(display, opacity_of(picture, wanted).reshape(-1), picture, wanted)
    pixels[..., :3] = stored.reshape(16, 16, 3)
    assert np.abs(display_of(picture, wanted).reshape(-1, 3) - display).max() < 2e-3
    middle = stored_of(np.full((1, 3), 0.5, np.float32), np.ones(1, np.float32), Picture(soups.noise(1, 1)), target())
    assert middle.tolist() == [[128, 128, 128]]


def test_unknown_colour_spaces_are_refused():
    check_colourspace(target(colourspace="sRGB"))
    with pytest.raises(UnknownColourspace) as caught:
        check_colourspace(target(colourspace="ACES2065-1"))
    assert caught.value.reason == "E_COLORSPACE" and "sRGB" in caught.value.remedy


def test_a_16_bit_tiff_keeps_its_depth():
    pixels = soups.noise(9, 9, 3, kind=np.uint16)
    data = bytes(cv2.imencode(".tiff", pixels[..., ::-1])[1])
    assert (decode(data).pixels == pixels).all()
