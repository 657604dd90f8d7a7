"""Everything a run can be told: one frozen, strict record per stage of the paper.

Angles are degrees here (radians in code), lengths are world units (the object spans about +-0.6), sizes are pixels. A
*schedule* is a number, or (fraction of the stage, value) points with straight lines between them, so that shortening
a stage keeps its shape (method section 18); two points at one fraction make a jump. The named sets of values are in
``presets``. No torch here.
"""

import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dreamcraft3d.errors import ConfigError

__all__ = [
    "BootstrapConfig",
    "CoarseNerfConfig",
    "ExemplarConfig",
    "ExportConfig",
    "GenerateConfig",
    "GeometryConfig",
    "GuidanceConfig",
    "HashGridConfig",
    "NeusConfig",
    "PictureConfig",
    "PriorsConfig",
    "ProjectionConfig",
    "ReferenceConfig",
    "ReferenceWeights",
    "RefineConfig",
    "Schedule",
    "ShapeConfig",
    "TextureConfig",
    "describe",
    "fingerprint",
    "parse_setting",
    "with_settings",
]

Point = tuple[Annotated[float, Field(ge=0.0, le=1.0)], float]


def _ordered(points: tuple[Point, ...]) -> tuple[Point, ...]:
    if any(after[0] < before[0] for before, after in itertools.pairwise(points)):
        raise ValueError("the fractions of a schedule must not decrease")
    return points


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=8, le=4096)]
Schedule = Finite | Annotated[tuple[Point, ...], Field(min_length=1), AfterValidator(_ordered)]
"""A number, or (fraction of the stage, value) points; read by ``functional.schedules.piecewise_linear``."""


GUIDED_STAGES = ("coarse_nerf", "neus", "geometry", "texture")
"""Stages that ask the priors, in order."""


class Record(BaseModel):
    """Base of all configuration records: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ReferenceConfig(Record):
    """Stage 0: how the picture is prepared."""

    elevation: Annotated[float, Field(ge=-80.0, le=80.0)] | None = None
    """camera height of the picture in degrees: 0 = level, 20 = slightly from above; null = guessed if a prior can"""
    fov: Annotated[float, Field(ge=5.0, le=90.0)] | None = None
    """field of view of the prepared square picture in degrees; null = guessed if a prior can, else 20"""
    size: Annotated[int, Field(ge=64, le=4096)] = 512
    """side of the square canvas"""
    coverage: Annotated[float, Field(gt=0.1, le=1.0)] = 0.9
    """longest side of the object as a share of the canvas"""
    matting: Literal["auto", "rembg", "grabcut"] = "auto"
    """background removal for pictures without transparency; auto takes rembg when its model is on disk"""
    max_megapixels: Positive = 64.0
    """larger pictures are refused before they are decoded"""
    mask: Path | None = None
    """grey picture of the same size as the input: white = object"""
    depth: Path | None = None
    """depth map of the same size as the input"""
    depth_larger: Literal["farther", "nearer"] = "farther"
    """what a larger value of the depth map means"""
    normal: Path | None = None
    """normal map of the same size as the input, in view space"""
    normal_axes: Literal["opengl", "directx", "omnidata"] = "opengl"
    """opengl: x right, y up, z to the viewer; directx: y down; omnidata: files of the official preprocessing script"""
    estimate: bool = True
    """let a network guess the depth and the normals that are not given"""
    estimator: Literal["auto", "prior", "marigold"] = "auto"
    """which one: auto takes Marigold where it is installed and there is a card, else the 3D-aware prior if it can"""
    delight: bool = False
    """divide what smooth light explains of the brightness out of the image before the texture stage; needs normals"""

    @property
    def elevation_or_level(self) -> float:
        """The elevation that was given, else 0 degrees."""
        return self.elevation or 0.0


class PictureConfig(Record):
    """Stage 0 from words: pictures are drawn, and one of them is taken."""

    model: str = "stable-diffusion-xl"
    """text-to-picture model: one of the catalogue, or a folder in diffusers layout"""
    count: Annotated[int, Field(ge=1, le=64)] = 4
    """pictures to choose from"""
    choice: Annotated[int, Field(ge=1)] | None = None
    """number of the picture to take; null = the one that shows one whole object best"""
    steps: Count = 30
    """denoising steps of each picture"""
    cfg: Finite = 7.0
    """guidance scale"""


class ReferenceWeights(Record):
    """Weights of the losses in the reference view (method section 7); means over pixels."""

    rgb: Weight = 1.0
    """mean squared colour error over white"""
    mask: Weight = 0.5
    """mean squared error of the opacity"""
    depth: Weight = 0.05
    """1 - correlation with the depth map, where there is one"""
    normal: Weight = 0.05
    """1 - cosine with the normal map, where there is one"""


class WeakViewsConfig(Record):
    """Pictures of other sides that the 3D-aware prior draws first, as weak reference views (method section 12.1)."""

    count: Annotated[int, Field(ge=0, le=16)] = 0
    """how many, evenly around the object; 0 = none"""
    elevation: Annotated[float, Field(ge=-80.0, le=80.0)] = 10.0
    """height of their cameras, degrees"""
    steps: Count = 20
    """steps in which each is drawn from noise"""
    every: Count = 3
    """one in so many looks at novel views is at them"""
    weight: Schedule = ((0.0, 0.3), (0.5, 0.3), (1.0, 0.0))
    """their share of the weights of the reference picture"""


class GuidanceConfig(Record):
    """How novel views are chosen and judged (method sections 1.2 and 6)."""

    batch: Count = 2
    """novel views per step"""
    elevation: tuple[Finite, Finite] = (-10.0, 45.0)
    """range of the novel views' camera heights, degrees"""
    views: Literal["stratified", "random"] = "stratified"
    """stratified spreads azimuths evenly over the circle; random is the paper's sampler"""
    progressive_until: Fraction = 0.04
    """fraction of the stage at which the whole circle is open"""
    form: Literal["x0", "sds"] = "x0"
    """x0 compares with the denoised picture; sds is the paper's gradient"""
    timesteps: Literal["monotone", "random"] = "monotone"
    """monotone only falls; random draws between t_low and t_high, as in the paper"""
    t_low: Schedule = 0.02
    """lowest noise level, fraction of the prior's timesteps"""
    t_high: Schedule = 0.85
    """highest noise level, fraction of the prior's timesteps"""
    view_weight: Weight = 1.0
    """weight of the view-conditioned (3D-aware) prior"""
    view_cfg: Finite = 3.0
    """classifier-free guidance scale of the view-conditioned prior"""
    image_weight: Weight = 0.0
    """weight of the picture (2D) prior"""
    image_cfg: Finite = 20.0
    """classifier-free guidance scale of the picture prior"""


class HashGridConfig(Record):
    """Multiresolution hash grid and its heads (method section 5.1)."""

    levels: Annotated[int, Field(ge=1, le=16)] = 16
    """number of resolutions"""
    base_resolution: Annotated[int, Field(ge=2)] = 16
    """cells per side of the coarsest level"""
    growth: Annotated[float, Field(gt=1.0, le=2.0)] = 1.447269237440378
    """resolution ratio of neighbouring levels"""
    log2_table_size: Annotated[int, Field(ge=8, le=24)] = 19
    """largest number of entries of a level, as a power of two"""
    hidden: Count = 64
    """width of the heads"""


class LiftedStartConfig(Record):
    """Start from the volume of a feed-forward prior (`coarse_nerf.start=lifted`)."""

    cells: Annotated[int, Field(ge=4, le=256)] = 48
    """cells per side when the volume's surface is extracted"""
    smoothing: Annotated[int, Field(ge=0, le=100)] = 4
    """iterations of the filter that smooths this surface"""
    agreement: Fraction = 0.7
    """smallest IoU of its silhouette with the picture's mask; below, the run takes the way from a ball instead"""


class CoarseNerfConfig(Record):
    """Stage 1a: coarse NeRF (method section 8)."""

    steps: Count = 400
    """optimiser steps; every second one looks at the reference picture"""
    start: Literal["ball", "lifted"] = "ball"
    """ball: NeRF and NeuS from a soft ball; lifted: no NeRF, no NeuS, but the surface of the 3D-aware prior's volume"""
    lifted: LiftedStartConfig = LiftedStartConfig()
    lr: Positive = 0.01
    """learning rate of everything"""
    render_size: Schedule = 64
    """side of the renders"""
    step_size: Positive = 0.0135
    """distance of samples along a ray"""
    occupancy_resolution: Annotated[int, Field(ge=8, le=256)] = 48
    """cells per side of the grid that skips empty space"""
    active_levels: Schedule = 16
    """hash-grid levels in use; coarse ones first"""
    normal_epsilon: Positive | None = None
    """finite-difference distance of normals; null = no normals, and no loss on them"""
    normal_smooth: Weight = 0.0
    """weight of smooth normal maps"""
    orient: Weight = 0.0
    """weight against normals that face away from the camera"""
    sparsity: Schedule = 0.0
    """weight against opacity anywhere"""
    opaque: Schedule = 0.0
    """weight against half-transparency"""
    reference: ReferenceWeights = ReferenceWeights()
    guidance: GuidanceConfig = GuidanceConfig()
    weak_views: WeakViewsConfig = WeakViewsConfig()
    hash_grid: HashGridConfig = HashGridConfig()


class NeusConfig(Record):
    """Stage 1b: NeuS surface (method section 9)."""

    steps: Count = 200
    """optimiser steps; every second one looks at the reference picture"""
    lr_grid: Positive = 0.01
    """learning rate of the hash grid"""
    lr_heads: Positive = 0.001
    """learning rate of the small networks"""
    lr_sharpness: Positive = 0.002
    """learning rate of the surface's sharpness"""
    initial_sharpness: Positive = 100.0
    """inverse width of the surface at the start"""
    render_size: Schedule = 64
    """side of the renders"""
    step_size: Positive = 0.0135
    """distance of samples along a ray"""
    extraction_cells: Annotated[int, Field(ge=4, le=256)] = 48
    """cells per side when the NeRF's surface is extracted"""
    fit_steps: Annotated[int, Field(ge=0)] = 200
    """steps that teach the field the NeRF's shape"""
    fit_points: Count = 20000
    """points with a known distance to it"""
    fit_batch: Count = 8192
    """points per fitting step"""
    normal_epsilon: Positive | None = None
    """finite-difference distance of normals; null = no normals, and no loss on them"""
    normal_smooth: Weight = 0.0
    """weight of smooth normal maps"""
    orient: Weight = 0.0
    """weight against normals that face away from the camera"""
    sparsity: Weight = 0.0
    """weight against opacity anywhere"""
    opaque: Weight = 0.0
    """weight against half-transparency"""
    eikonal: Weight = 0.1
    """weight of gradients having length one"""
    eikonal_points: Count = 2048
    """random points where that is asked"""
    eikonal_epsilon: Positive = 0.01
    """finite-difference distance of these gradients"""
    reference: ReferenceWeights = ReferenceWeights()
    guidance: GuidanceConfig = GuidanceConfig()
    weak_views: WeakViewsConfig = WeakViewsConfig()


class GeometryConfig(Record):
    """Stage 2: tetrahedral mesh (method section 10)."""

    steps: Count = 200
    """optimiser steps; each one sees the reference picture and novel views"""
    lr_sdf: Positive = 0.02
    """learning rate of the signed distances, in cells per step"""
    lr_deformation: Positive = 0.005
    """learning rate of the vertex offsets"""
    lr_colour: Positive = 0.005
    """learning rate of the colours"""
    lr_decay: Schedule = ((0.0, 1.0), (0.5, 1.0), (1.0, 0.1))
    """factor on all learning rates"""
    cells: Annotated[int, Field(ge=4, le=256)] = 48
    """cells per side of the tetrahedral grid"""
    render_size: Schedule = 128
    """side of the renders"""
    normal_guidance: Weight = 1.0
    """weight of the prior's opinion of normal maps"""
    normal_consistency: Schedule = 0.01
    """weight of neighbouring normals agreeing"""
    laplacian: Weight = 0.0
    """weight of vertices staying among their neighbours"""
    reference: ReferenceWeights = ReferenceWeights()
    guidance: GuidanceConfig = GuidanceConfig()


class ShapeConfig(Record):
    """A mesh as the first stage: it takes the place of NeRF and NeuS."""

    mesh: Path | None = None
    """mesh file (GLB, OBJ) whose shape is the start; null = the shape is made from the picture"""
    aligned: bool = False
    """the mesh lies where the result of an earlier run would lie; otherwise it is turned, scaled and moved to fit the
    picture"""
    turn: bool = True
    """look for the side that the picture shows; false: it shows the mesh's front"""
    pitch: Annotated[float, Field(ge=0.0, le=45.0)] = 0.0
    """how far it may be tilted, degrees"""
    least_overlap: Fraction = 0.5
    """a mesh whose silhouette agrees less with the picture's (intersection over union) is refused"""
    max_triangles: Count = 4_000_000
    """denser meshes are refused"""


class BootstrapConfig(Record):
    """Variational score distillation of the texture, and the rounds that teach the prior this object (section 6.7).

    It is the 2D prior that learns if the stage has one, otherwise the 3D-aware one; another one keeps its form.
    """

    form: Literal["none", "vsd", "bsd"] = "none"
    """none: as texture.guidance.form says; vsd: against the renders' own score; bsd: and the prior learns the object"""
    rounds: Count = 2
    """bsd: how often new pictures of the object are made and learnt, evenly over the stage"""
    round_steps: Count = 200
    """bsd: learning steps of each round; they come on top of the stage's steps"""
    round_views: Count = 8
    """bsd: improved renders of each round; the reference picture is always among what is learnt"""
    strength: Schedule = ((0.0, 0.5), (1.0, 0.1))
    """bsd: noise level from which renders are improved, first to last round, fraction of the prior's timesteps"""
    sampling_steps: Count = 25
    """bsd: denoising steps from pure noise; an improvement takes its share of them"""
    sampling_cfg: Finite = 7.5
    """bsd: guidance scale of the improvements"""
    sampler: Literal["frozen", "personal"] = "frozen"
    """bsd: who improves: the prior as it came, or as it has learnt so far"""
    batch: Count = 1
    """bsd: pictures per learning step"""
    personal_rank: Count = 16
    """rank of the adapter that learns the object"""
    variational_rank: Count = 4
    """rank of the adapter that learns the renders"""
    lr_personal: Positive = 1e-4
    """learning rate of the former"""
    lr_variational: Positive = 1e-4
    """learning rate of the latter"""
    dropout: Fraction = 0.1
    """how often an adapter learns without being told what it sees, and without being told from where"""


class TextureConfig(Record):
    """Stage 3: texture of the finished mesh (method section 11)."""

    steps: Count = 200
    """optimiser steps; every second one looks at the reference picture"""
    lr_grid: Positive = 0.03
    """learning rate of the hash grid"""
    lr_heads: Positive = 0.005
    """learning rate of the small network"""
    lr_decay: Schedule = ((0.0, 1.0), (0.5, 1.0), (1.0, 0.1))
    """factor on all learning rates"""
    epsilon: Positive = 1e-15
    """Adam's; where it is large against gradients, small ones move little (the release: 1e-4)"""
    reference_size: Size = 512
    """side of the render that is compared with the reference picture"""
    reference_weight: Weight = 1.0
    """weight of the absolute colour error in the reference view"""
    reference_pixels: Annotated[int, Field(ge=0)] = 0
    """random pixels of the reference view per step; 0 = all of them"""
    render_size: Size = 128
    """side of the novel views"""
    view_pool: Annotated[int, Field(ge=0, le=1024)] = 0
    """novel views that are rasterised once and shown in turn; 0 = new ones in every step, as guidance.views says"""
    fit_steps: Annotated[int, Field(ge=0)] = 200
    """steps that teach the field the geometry stage's colours"""
    fit_batch: Count = 16384
    """surface points per fitting step"""
    smooth: Weight = 0.0
    """weight of nearby colours agreeing where the reference picture shows nothing"""
    smooth_points: Count = 8192
    """pairs of points where that is asked"""
    smooth_distance: Positive = 0.01
    """distance within the pairs"""
    bootstrap: BootstrapConfig = BootstrapConfig()
    guidance: GuidanceConfig = GuidanceConfig()
    hash_grid: HashGridConfig = HashGridConfig()


class ProjectionConfig(Record):
    """The reference image itself as the texture, wherever it shows the surface."""

    enabled: bool = False
    """false leaves the whole texture to the texture stage; true is sharper, and less sure where outlines disagree"""
    cosine: tuple[Fraction, Fraction] = (0.1, 0.3)
    """cosine of the viewing angle at which the image begins to be trusted, and at which it is trusted fully"""
    margin: tuple[Weight, Weight] = (0.0, 1.0)
    """distance to an outline at which the same happens, in 512ths of the image's side"""
    reach: Positive = 0.1
    """how far beyond its border the image pulls the other colours along, world units"""


class ExemplarConfig(Record):
    """Painting what the picture does not show with the picture's own patches, guided by the colours that are there."""

    enabled: bool = False
    """whether that is done"""
    picture: Path | None = None
    """a second picture as a source of patches (a swatch); its transparent parts are left out"""
    size: Literal[64, 128, 256, 512] = 256
    """side of the finest painted views; each coarser one is half as large, down to 64"""
    guide: Weight = 1.0
    """weight of the blurred colours of the texture, which decide what material belongs where"""
    height: Weight = 0.02
    """weight of the height in the picture: what is above there belongs above"""
    rarity: Weight = 2.0
    """weight against patches that are rare in the picture, such as faces, eyes and logos"""
    repetition: Weight = 0.0005
    """weight against patches that have been used more often than others"""
    spread: Fraction = 1.0
    """how far the unseen colours are brought to the picture's mean and spread"""
    keep_colours: Fraction = 0.5
    """how far the blurred colours of the painted parts go back to those that were there"""


class ExportConfig(Record):
    """The finished mesh file."""

    target_faces: Annotated[int, Field(ge=100, le=500_000)] = 10_000
    """largest number of triangles"""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """side of the texture"""
    unwrap_seconds: Positive = 60.0
    """time limit of the unwrap; then a simpler one is used"""


class RefineConfig(Record):
    """Repainting a mesh that has texture coordinates of its own (`dreamcraft3d refine`)."""

    strength: Fraction = 1.0
    """how far the texture may move from the present one; 0 returns it unchanged"""
    elevation: tuple[Finite, Finite] | None = None
    """range of the novel views' camera heights, degrees; null = that of texture.guidance"""
    overlap: Literal["auto", "error", "owner", "average"] = "auto"
    """where faces share texels: owner = the lowest face paints; auto = owner for mirrored halves and small overlaps"""
    unseen: Literal["keep", "fill"] = "keep"
    """texels that no view shows keep their colour, or take what the field happens to hold there"""
    padding: Annotated[int, Field(ge=0, le=256)] | None = None
    """gutter around what is painted, texels; null = by the size of the texture (16 at 4096, at least 12)"""
    two_sided: bool = True
    """give the two sides of thin walls colours of their own"""
    texture_size: Annotated[int, Field(ge=16, le=8192)] = 1024
    """side of the new texture where a material has none"""
    max_triangles: Count = 4_000_000
    """denser meshes are refused"""
    max_megatexels: Positive = 512.0
    """more texels in all tiles together are refused"""


class PriorsConfig(Record):
    """Which priors judge the renders: "bundled", "none", a model of the catalogue, a folder, or "exemplar", the
    picture's own patches, which know no views."""

    view: str = "bundled"
    """3D-aware prior, which knows the object from a relative camera"""
    image: str = "none"
    """2D prior of the NeRF, NeuS and geometry stages"""
    texture: str = "none"
    """2D prior of the texture stage"""
    offload: bool = False
    """take every measure that saves memory from the start, as far as the priors have any; slower"""


class GenerateConfig(Record):
    """A whole run."""

    preset: str = "custom"
    """the named set of values that this one started from"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """same seed, same result"""
    prompt: str = ""
    """the object in words, in English, as in "a red bird"; for priors that know pictures by their captions"""
    prior: Literal["bundled"] = "bundled"
    """the pretrained network that judges novel views"""
    priors: PriorsConfig = PriorsConfig()
    device: Literal["auto", "cpu"] = "auto"
    """where the work is done: auto = on the graphics card if there is a usable one"""
    oracle_size: Size = 64
    """side of the pictures of the exact prior in `evaluate --oracle`"""
    reference: ReferenceConfig = ReferenceConfig()
    shape: ShapeConfig = ShapeConfig()
    coarse_nerf: CoarseNerfConfig = CoarseNerfConfig()
    neus: NeusConfig = NeusConfig()
    geometry: GeometryConfig = GeometryConfig()
    texture: TextureConfig = TextureConfig()
    projection: ProjectionConfig = ProjectionConfig()
    exemplar: ExemplarConfig = ExemplarConfig()
    export: ExportConfig = ExportConfig()
    refine: RefineConfig = RefineConfig()
    picture: PictureConfig = PictureConfig()

    def priors_of(self, stage: str) -> tuple[str | None, str | None]:
        """(3D-aware prior, 2D prior) that a stage asks: only those with a weight above zero.

        >>> GenerateConfig().priors_of("texture")
        ('bundled', None)
        """
        guidance: GuidanceConfig = getattr(self, stage).guidance
        image = self.priors.texture if stage == "texture" else self.priors.image
        named = ((self.priors.view, guidance.view_weight), (image, guidance.image_weight))
        view, image_prior = (name if name != "none" and weight > 0.0 else None for name, weight in named)
        return view, image_prior

    @property
    def skips_volumes(self) -> bool:
        """Whether NeRF and NeuS run only if the lifted start is refused: it is wanted, and the prior offers one."""
        return self.coarse_nerf.start == "lifted" and self.priors_of("coarse_nerf")[0] == "bundled"

    def guided_stages(self) -> tuple[str, ...]:
        """The stages that run and query priors, in order: with a mesh to start from, no volume stages.

        >>> GenerateConfig(shape=ShapeConfig(mesh=Path("blockout.glb"))).guided_stages()
        ('geometry', 'texture')
        """
        return GUIDED_STAGES if self.shape.mesh is None else GUIDED_STAGES[2:]

    def prior_names(self) -> tuple[str, ...]:
        """All priors that the run asks, each once, in the order of the stages."""
        names = [name for stage in self.guided_stages() for name in self.priors_of(stage)]
        return tuple(dict.fromkeys(name for name in names if name is not None))


AnyRecord = TypeVar("AnyRecord", bound=Record)


def parse_setting(text: str) -> tuple[str, Any]:
    """``stage.key=value`` to (key, value); the value is JSON, and anything else is taken as a word.

    >>> parse_setting("coarse_nerf.render_size=[[0, 64], [1, 128]]")
    ('coarse_nerf.render_size', [[0, 64], [1, 128]])
    >>> parse_setting("coarse_nerf.guidance.form=sds")
    ('coarse_nerf.guidance.form', 'sds')
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"'{text}' is not a setting.", "Write --set stage.key=value, as in coarse_nerf.steps=500.")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()


def with_settings(config: AnyRecord, settings: Mapping[str, Any]) -> AnyRecord:
    """A copy with some values replaced, by dotted key; values as they would come from JSON (or paths).

    Raises:
        ConfigError: an unknown key (the message names the closest known ones), or a value of the wrong type or range.
    """
    values = config.model_dump(mode="json")
    known = dict(_leaves(values))
    for key, value in settings.items():
        *parents, last = key.split(".")
        if key not in known:
            raise _unknown(key, list(known))
        inside = values
        for parent in parents:
            inside = inside[parent]
        inside[last] = str(value) if isinstance(value, Path) else value
    try:
        return type(config).model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise _explain(error) from error


def fingerprint(config: BaseModel, *upstream: str) -> str:
    """A name for this work: equal exactly when the configuration and everything upstream are equal."""
    canonical = json.dumps([config.model_dump(mode="json"), *upstream], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def describe(config: Record, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, value as JSON, meaning) of every setting, in order."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Record):
            yield from describe(value, f"{prefix}{name}.")
        else:
            text = json.dumps(config.model_dump(mode="json", include={name})[name])
            yield f"{prefix}{name}", text, field.description or ""


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _unknown(key: str, known: Sequence[str]) -> ConfigError:
    """Names the settings that were probably meant: those like the whole key, or ending like its last word."""
    members = [name for name in known if name.startswith(f"{key}.")]
    if members:
        return ConfigError(f"'{key}' is a group of settings.", f"Name one of them, as in {members[0]}.")
    by_end = {name.rpartition(".")[2]: name for name in reversed(known)}
    ends = difflib.get_close_matches(key.rpartition(".")[2], by_end, n=2, cutoff=0.75)
    whole = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    near = list(dict.fromkeys([*whole, *(by_end[end] for end in ends)]))[:3]
    groups = list(dict.fromkeys(name.partition(".")[0] for name in known))
    hint = f"Did you mean {' or '.join(near)}?" if near else f"The first word is one of: {', '.join(groups)}."
    return ConfigError(f"There is no setting '{key}'.", f"{hint} `dreamcraft3d settings` lists all.")


def _explain(error: ValidationError) -> ConfigError:
    """The first complaint as one line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    message, value = first["msg"].removeprefix("Value error, "), first["input"]
    if "float" in path:  # the complaint of a schedule's first member, which says nothing about points
        del path[path.index("float") :]
        message = "must be a number, or points [[fraction, value], ...] whose fractions rise from 0 to 1"
    key = ".".join(part for part in path if part.isidentifier())
    if first["type"] == "extra_forbidden":
        return ConfigError(f"There is no setting '{key}'.", "`dreamcraft3d settings` lists all.")
    message = message[0].lower() + message[1:].removesuffix(".")
    return ConfigError(f"Setting {key}: {message}, but got {json.dumps(value)}.", "Change or drop this setting.")
