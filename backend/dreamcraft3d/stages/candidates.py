"""Stage 0 from words: some pictures are drawn, and the one from which an object is best made is taken.

A good reference shows one object, whole, on a plain ground: that is what can be judged without another network. Who
does not agree looks at `candidates.png` and chooses.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dreamcraft3d.config import PictureConfig
from dreamcraft3d.errors import ConfigError, InputError
from dreamcraft3d.progress import Progress
from dreamcraft3d.stages.matting import find_object, plain_background
from dreamcraft3d.workspace import Workspace

__all__ = ["Candidate", "candidates_for", "chosen", "picture_score"]

Draw = Callable[[list[int]], Iterator[Image.Image]]
THUMBNAIL = 256


@dataclass(frozen=True)
class Candidate:
    """A drawn picture: its file, and how well an object can be made of it, from 0 to 1."""

    file: Path
    seed: int
    score: float


def candidates_for(
    prompt: str, config: PictureConfig, seed: int, workspace: Workspace, progress: Progress, draw: Draw
) -> list[Candidate]:
    """The pictures for these words: those that an earlier call left in the workspace (open), else newly drawn.

    `draw` makes one picture for each seed. Leaves `candidates/NN.png`, `candidates.png` and `candidates/index.json`.
    """
    work = _digest(prompt, config, seed)
    if (known := _read(workspace, work)) is not None:
        progress.note("pictures: already drawn, using the saved ones.")
        return known
    seeds = [seed + index for index in range(config.count)]
    found: list[Candidate] = []
    pictures: list[Image.Image] = []
    drawing = draw(seeds)
    for number in progress.track("pictures", range(config.count), config.count):
        picture = next(drawing)
        file = workspace.file("candidates", f"{number + 1:02}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        workspace.write_bytes(f"candidates/{file.name}", _png(picture))
        score = picture_score(np.asarray(picture))
        found.append(Candidate(file, seeds[number], round(score, 3)))
        pictures.append(picture)
        progress.artifact(f"picture {number + 1} (score {score:.2f})", file)
    sheet = workspace.write_bytes("candidates.png", _png(_sheet(pictures)))
    progress.artifact("candidates.png", sheet)
    rows = [{**asdict(candidate), "file": candidate.file.name} for candidate in found]
    workspace.write_json("candidates/index.json", {"work": work, "pictures": rows})
    return found


def chosen(candidates: list[Candidate], choice: int | None) -> Candidate:
    """The picture with this number (from 1), or the one with the best score.

    Raises:
        ConfigError: there is no such number.
    """
    if choice is None:
        return max(candidates, key=lambda candidate: candidate.score)
    if choice > len(candidates):
        raise ConfigError(f"There is no picture {choice}.", f"Choose one of 1 to {len(candidates)}.")
    return candidates[choice - 1]


def picture_score(rgb: NDArray[np.uint8]) -> float:
    """How well a picture shows one whole object: product of four shares, each 1 where nothing is wrong.

    The object's largest part among all parts; what of its outline keeps off the border; its size (a fifth to four
    fifths of the area is best); and a plain ground (one half if there is none).
    """
    try:
        opacity, _ = find_object(rgb, "grabcut")
    except InputError:
        return 0.0
    mask = opacity > 0.5
    labels, parts = ndimage.label(mask)
    if parts == 0:
        return 0.0
    sizes = np.bincount(labels.ravel())[1:]
    whole = float(sizes.max() / sizes.sum())
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    inside = 1.0 - float(border.mean())
    area = float(mask.mean())
    size = min(area / 0.2, (1.0 - area) / 0.2, 1.0)
    plain = 1.0 if plain_background(rgb) is not None else 0.5
    return whole * inside**4 * size * plain


def _digest(prompt: str, config: PictureConfig, seed: int) -> str:
    what = [prompt, config.model_dump(mode="json", exclude={"choice"}), seed]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _read(workspace: Workspace, work: str) -> list[Candidate] | None:
    """What `candidates_for` left for this very work; None if anything is missing."""
    try:
        index = json.loads(workspace.file("candidates", "index.json").read_text(encoding="utf-8"))
        if index["work"] != work:
            return None
        found = [Candidate(**{**row, "file": workspace.file("candidates", row["file"])}) for row in index["pictures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all(candidate.file.is_file() for candidate in found) else None


def _sheet(pictures: list[Image.Image]) -> Image.Image:
    """All pictures in one row, in order."""
    sheet = Image.new("RGB", (THUMBNAIL * len(pictures), THUMBNAIL), (255, 255, 255))
    for index, picture in enumerate(pictures):
        sheet.paste(picture.resize((THUMBNAIL, THUMBNAIL)), (index * THUMBNAIL, 0))
    return sheet


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
