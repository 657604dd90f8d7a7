"""``index.html``: every item with its picture and its result, in one file that needs no other and no network.

Thumbnails are embedded; the results beside it are linked by relative paths. Failed items come first, with their reason.
"""

import base64
import html
from collections.abc import Iterator
from pathlib import Path

from dreamcraft3d.batch.survey import Standing, counts
from dreamcraft3d.batch.tasks import Batch
from dreamcraft3d.batch.thumbnails import picture_thumbnail
from dreamcraft3d.workspace import atomic_path

__all__ = ["write_contact_sheet"]

STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(21.5rem, 1fr)); gap: 1rem; }
article { border: 1px solid #8886; border-radius: 6px; padding: .6rem; }
article.failed { border-color: #c33; }
article > div { display: flex; gap: .5rem; min-height: 160px; }
img { width: 160px; height: 160px; object-fit: contain; background: #8882; border-radius: 4px; }
h2 { font-size: 1rem; margin: .4rem 0 0; overflow-wrap: anywhere; }
p { margin: .1rem 0; opacity: .8; overflow-wrap: anywhere; }
.failed p { opacity: 1; }
"""
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{totals}</p>
<main>
"""
TAIL = "</main></body></html>\n"


def write_contact_sheet(batch: Batch, standings: list[Standing]) -> None:
    """Writes the page, one item after the other: thousands of thumbnails are never in memory. Raises OutputError."""
    ordered = sorted(standings, key=lambda standing: standing.state != "failed")
    totals = ", ".join(f"{number} {state}" for state, number in counts(ordered).items())
    title = html.escape(batch.source.name)
    with atomic_path(batch.out / "index.html") as temporary, temporary.open("w", encoding="utf-8") as page:
        page.write(HEAD.format(title=title, style=STYLE, totals=totals))
        for standing in ordered:
            page.writelines(_article(batch, standing))
        page.write(TAIL)


def _article(batch: Batch, standing: Standing) -> Iterator[str]:
    folder, item = batch.folder(standing.id), standing.task.item
    yield f'<article class="{standing.state}" id="{html.escape(item.id)}"><div>'
    if (picture := standing.task.inputs.get("image")) is not None:
        yield _image(picture_thumbnail(picture), "picture")
    if standing.outcome is not None:
        yield _image(_read(folder / "thumbnail.webp"), "result")
    yield f"</div><h2>{html.escape(item.name or item.id)}</h2>"
    if item.name:
        yield f"<p>{html.escape(item.id)}</p>"
    yield f"<p>{' · '.join(_facts(standing))}</p>"
    if standing.error is not None and standing.state == "failed":
        reason = f"{standing.error.get('message', '')} {standing.error.get('remedy', '')}"
        yield f'<p>{html.escape(reason)} <a href="{standing.log}">log</a></p>'
    if standing.outcome is not None:
        links = (f'<a href="items/{item.id}/{name}">{name}</a>' for name in sorted(standing.outcome.outputs))
        yield f"<p>{' '.join(links)}</p>"
    yield "</article>\n"


def _facts(standing: Standing) -> Iterator[str]:
    yield standing.state
    yield f"{html.escape(standing.task.item.preset)}, seed {standing.task.config.seed}"
    if standing.history.seconds:
        yield f"{standing.history.seconds:.0f} s"
    yield from (html.escape(tag) for tag in standing.task.item.tags)


def _image(data: bytes | None, kind: str) -> str:
    if data is None:
        return ""
    return f'<img alt="{kind}" loading="lazy" src="data:image/webp;base64,{base64.b64encode(data).decode("ascii")}">'


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
