"""The Debian packages that objects are collected from: how each is read, and whose work it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dreamcraft3d.errors import InputError
from dreamcraft3d.training.collect.actors import actors
from dreamcraft3d.training.collect.candidates import Candidate, Listing
from dreamcraft3d.training.collect.files import PackageFiles, TextureFinder
from dreamcraft3d.training.collect.formats.ac3d import read_ac3d
from dreamcraft3d.training.collect.formats.g3d import read_g3d
from dreamcraft3d.training.collect.formats.md2 import read_md2
from dreamcraft3d.training.collect.formats.md3 import read_md3
from dreamcraft3d.training.collect.formats.pie import read_pie
from dreamcraft3d.training.collect.formats.spm import read_spm
from dreamcraft3d.training.collect.formats.vrml import read_vrml
from dreamcraft3d.training.collect.furniture import home_decor, sweet_home


@dataclass(frozen=True)
class Package:
    """A Debian package and how its objects are listed.

    Attributes:
        name: of the Debian package.
        version: that the selection was made from (Debian 12); others may hold other objects.
        listing: lists its candidates.
        author, licence: of its objects, where neither a candidate nor the copyright file says more.
        prefix: what the ids begin with; empty: the name.
        root: folder of the package that names are relative to.
        archives, mounted: zip files whose members are taken instead of files; see `PackageFiles`.
        companions: packages that hold textures of its meshes.
        copyright_paths: where its files lie in the source package that the copyright file speaks of, see `stanza_of`.
        z_up: axes are x right, z up.
    """

    name: str
    version: str
    listing: Callable[[PackageFiles, TextureFinder], Iterator[Candidate]]
    author: str
    licence: str
    prefix: str = ""
    root: str = ""
    archives: str = ""
    mounted: bool = False
    companions: tuple[str, ...] = ()
    copyright_paths: tuple[tuple[str, str], ...] = ()
    z_up: bool = False

    @property
    def key(self) -> str:
        """What the ids begin with."""
        return self.prefix or self.name


NO_OBJECTS = r"_track|track\.spm|navmesh|minimap|sky|driveline|water|ocean|lod_|_lod"
AC3D = Listing(read_ac3d, (".ac",))
MD3 = Listing(
    read_md3, (".md3",), skip=r"_[123]\.md3$|/(lower|upper|head|animation)"
)  # levels of detail, thirds of men
FLIGHTGEAR = "usr/share/games/flightgear/"
OPENARENA = ("openarena-081-textures", "openarena-085-data")

PACKAGES = (
    Package("0ad-data", "0.0.26-1", actors, "Wildfire Games", "CC-BY-SA-3.0", archives="public.zip"),
    Package("flightgear-data-base", "1:2020.3.16+dfsg-1", AC3D, "FlightGear contributors", "GPL-2+", root=FLIGHTGEAR),
    Package("flightgear-data-models", "1:2020.3.16+dfsg-1", AC3D, "FlightGear contributors", "GPL-2+", root=FLIGHTGEAR),
    Package("flightgear-data-ai", "1:2020.3.16+dfsg-1", AC3D, "FlightGear contributors", "GPL-2+", root=FLIGHTGEAR),
    Package(
        "sweethome3d-furniture",
        "1.8-1",
        sweet_home,
        "see the library",
        "CC-BY-3.0",
        prefix="sh3d",
        archives="*.sh3f",
        mounted=True,
    ),
    Package(
        "supertuxkart-data",
        "1.4+dfsg-2",
        Listing(read_spm, (".spm",), skip=NO_OBJECTS),
        "SuperTuxKart contributors",
        "",
        root="usr/share/games/supertuxkart/data/",
        copyright_paths=(("", "data/"), ("", "stk-assets/"), ("", "assets/")),
    ),
    Package(
        "megaglest-data",
        "3.13.0-3",
        Listing(read_g3d, (".g3d",), same_texture=True),
        "MegaGlest team",
        "CC-BY-SA-3.0",
        root="usr/share/games/megaglest/",
    ),
    Package(
        "ufoai-data",
        "2.5-2",
        Listing(read_md2, (".md2",)),
        "UFO:AI team",
        "",
        archives="*.pk3",
        copyright_paths=(("", "base/"),),
        z_up=True,
    ),
    Package(
        "warzone2100-data",
        "4.3.3-3",
        Listing(read_pie, (".pie",)),
        "Warzone 2100 Project",
        "",
        archives="*.wz",
        copyright_paths=(("", "data/"), ("", "data/base/"), ("", "data/mp/")),
    ),
    Package(
        "kicad-packages3d",
        "6.0.10-1",
        Listing(read_vrml, (".wrl",), short=True, family=r"[0-9.]+"),
        "KiCad library contributors",
        "CC-BY-SA-4.0-with-exception",
        root="usr/share/kicad/3dmodels/",
        z_up=True,
    ),
    Package(
        "minetest-mod-homedecor",
        "20210327.1-2",
        home_decor,
        "homedecor modpack (VanessaE and contributors)",
        "CC-BY-SA-4.0",
        copyright_paths=(("usr/share/games/minetest/mods/homedecor/", ""),),
    ),
    Package(
        "nexuiz-data",
        "2.5.2-12",
        MD3,
        "Alientrap, Lee Vermeulen",
        "GPL-2+",
        archives="*.pk3",
        z_up=True,
    ),
    Package(
        "openarena-data",
        "0.8.5split-14",
        MD3,
        "OpenArena team",
        "GPL-2+",
        archives="*.pk3",
        companions=OPENARENA,
        z_up=True,
    ),
    Package(
        "torcs-data",
        "1.3.7+dfsg-5",
        Listing(read_ac3d, (".ac", ".acc"), skip="track", unless="cars", with_suffix=True),
        "TORCS team",
        "GPL-2+",
        copyright_paths=(("usr/share/games/torcs/cars/", "data/cars/models/"), ("usr/share/games/torcs/", "data/")),
    ),
)


def package(name: str) -> Package:
    """The package of a Debian name, or of a prefix of ids.

    Raises:
        InputError: there is none.
    """
    found = next((each for each in PACKAGES if name in (each.name, each.key)), None)
    if found is None:
        known = ", ".join(each.name for each in PACKAGES)
        raise InputError(f"No recipe for the package '{name}'.", f"Choose among {known}.")
    return found
