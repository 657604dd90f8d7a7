"""Sweet Home 3D's catalogues and Minetest's registrations."""

from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.furniture import home_decor, properties, sweet_home
from mesh_files import obj, png, triangle, write

CATALOGUE = r"""# made by hand
id=x
name#1=Chaise \u00e0 bras
category#1=Living room
model#1=/scopia/chair/Chair.obj
name#10=Lamp
category#10=Lights
creator#10=Somebody
model#10=/scopia/lamp/lamp.3ds
"""

LUA = """
minetest.register_node("sofa", { mesh = "sofa.obj", tiles = { "wood.png", { name = "cloth.png", color = 1 } } })
minetest.register_node("bed", {
    tiles = { "sheet.png" },
    mesh = "homedecor_bed.obj",
})
"""


def test_properties_are_latin_with_escapes() -> None:
    assert properties("a = b=c\n#x=y\n name#1 =Caf\\u00e9 \xe9".encode("latin-1")) == {"a": "b=c", "name#1": "Café é"}


def test_a_catalogue_names_its_furniture(tmp_path) -> None:
    mesh = obj(triangle(), library="Chair.mtl", material="paint")
    chair = {"Chair.obj": mesh, "chair.mtl": "newmtl paint\nmap_Kd CLOTH.png\n", "cloth.png": png()}
    files = {f"Scopia/scopia/chair/{name}": data for name, data in chair.items()}
    files |= {"Scopia/PluginFurnitureCatalog.properties": CATALOGUE, "Scopia/scopia/lamp/other.obj": obj(triangle())}
    content = PackageFiles(write(tmp_path, files))
    first, second = sweet_home(content, TextureFinder([content]))
    assert (first.key, first.name, first.category) == ("Scopia_1_Chaise___bras", "Chaise à bras", "Living room")
    assert (first.author, first.licence) == ("Scopia", "CC-BY-3.0")
    assert first.read()[0].texture is not None, "file names differ in case"
    assert (second.source, second.author) == ("Scopia/scopia/lamp/other.obj", "Somebody")


def test_libraries_have_licences_of_their_own(tmp_path) -> None:
    files = {"BlendSwap-CC-0/PluginFurnitureCatalog.properties": CATALOGUE}
    content = PackageFiles(write(tmp_path, files))
    assert {each.licence for each in sweet_home(content, TextureFinder([content]))} == {"CC0"}


def test_registrations_name_the_images_of_materials_in_their_order(tmp_path) -> None:
    rows = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 1/1 3/3 2/2\n"
    images = {f"mod/textures/{name}.png": png(colour=(k, k, k)) for k, name in enumerate(("wood", "cloth", "sheet"))}
    files = {"mod/init.lua": LUA, "mod/models/sofa.obj": rows, "mod/models/homedecor_bed.obj": rows, **images}
    content = PackageFiles(write(tmp_path, files))
    bed, sofa = home_decor(content, TextureFinder([content]))
    assert (bed.key, bed.name) == ("homedecor_bed", "bed")
    assert [part.texture and part.texture.image.getpixel((0, 0))[0] for part in sofa.read()] == [0, 1]
    assert [part.texture and part.texture.image.getpixel((0, 0))[0] for part in bed.read()] == [2, None]
