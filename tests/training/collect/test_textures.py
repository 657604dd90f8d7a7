"""Images of materials: sizes, cut-outs, player colours."""

import io

import numpy as np
import pytest
from PIL import Image

from dreamcraft3d.training.collect.textures import LARGEST, prepare, read_texture
from mesh_files import image, png


def test_large_images_are_reduced_and_keep_their_shape() -> None:
    texture = prepare(image(size=(2 * LARGEST, LARGEST)))
    assert texture.image.size == (LARGEST, LARGEST // 2)


def test_holes_make_a_cutout_and_a_few_pixels_do_not() -> None:
    assert prepare(image("RGBA")).cutout
    speck = image("RGBA", (64, 64))
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[0, :4] = 0
    speck.putalpha(Image.fromarray(alpha))
    assert not prepare(speck).cutout
    assert prepare(speck).image.mode == "RGB"


def test_a_transparent_colour_makes_holes() -> None:
    made = image(size=(16, 16), colour=(0, 0, 0))
    made.paste((255, 0, 0), (0, 0, 8, 16))
    buffer = io.BytesIO()
    made.save(buffer, "PNG", transparency=(0, 0, 0))
    texture = read_texture(buffer.getvalue())
    assert texture is not None
    assert texture.cutout
    assert texture.image.getpixel((2, 2))[3] == 255
    assert texture.image.getpixel((12, 2))[3] == 0


def test_alpha_may_blend_to_the_player_instead() -> None:
    texture = read_texture(png("RGBA", colour=(0, 0, 255)), player_colour=True)
    assert texture is not None
    assert texture.image.mode == "RGB"
    player, own = texture.image.getpixel((1, 1)), texture.image.getpixel((14, 1))
    assert own == (0, 0, 255)
    assert player[0] > 3 * player[2], "red"


@pytest.mark.parametrize("data", [b"", b"no image", png()[:40]])
def test_what_is_no_image_is_none(data: bytes) -> None:
    assert read_texture(data) is None
