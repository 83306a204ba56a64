"""Videos of runs: inside the page where they are small, linked where they are not."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workhorse.core.files import list_folder, read_file
from workhorse.reports.markup import Markup, escape, link
from workhorse.reports.wording import number_text
from workhorse.studies.cells import CellSummary
from workhorse.studies.results import RunResult

__all__ = ["EMBEDDED_BYTES", "newest_video", "study_videos", "video"]

EMBEDDED_BYTES = 12 * 1024 * 1024
"""Videos up to this size, all of a page together, are put into the page."""


def newest_video(run_folder: Path | None) -> Path | None:
    """The newest video of a run; None where it has none."""
    if run_folder is None:
        return None
    found = [
        place for place in list_folder(run_folder / "videos", "*.mp4") if place.is_file() and not place.is_symlink()
    ]
    return max(found, key=lambda place: (place.stat().st_mtime, place.name), default=None)


def video(place: Path, page_folder: Path, caption: str, room: int = EMBEDDED_BYTES) -> Markup:
    """Return a video with its caption, or a link to it if it is too large for the page."""
    words = link(place, page_folder, caption)
    if place.stat().st_size > room:
        return Markup(
            f"<figure><figcaption>{words} (video, {place.stat().st_size / 2**20:.0f} MB)</figcaption></figure>"
        )
    content = base64.b64encode(read_file(place)).decode()
    return Markup(
        f'<figure><video controls loop muted playsinline preload="metadata" src="data:video/mp4;base64,{content}" '
        f'aria-label="{escape(caption)}"></video><figcaption>{words}</figcaption></figure>'
    )


def study_videos(cells: Sequence[CellSummary], page_folder: Path) -> Markup:
    """The median and the worst seed of each cell that have a video."""
    parts, room = [], EMBEDDED_BYTES
    for cell in cells:
        for name, place in _chosen(cell).items():
            run, found = cell.runs[place], newest_video(cell.runs[place].folder)
            if found is None:
                continue
            parts.append(video(found, page_folder, _caption(cell, run, name, float(cell.scores[place])), room))
            room -= found.stat().st_size if found.stat().st_size <= room else 0
    return Markup(f'<div class="videos">{"".join(parts)}</div>') if parts else Markup("")


def _chosen(cell: CellSummary) -> dict[str, int]:
    """Places of the run at the median, the lower of two, and of the worst one."""
    order = np.argsort(cell.scores, kind="stable")
    median, worst = int(order[(len(order) - 1) // 2]), int(order[0])
    return {"median seed": median} if median == worst else {"median seed": median, "worst seed": worst}


def _caption(cell: CellSummary, run: RunResult, name: str, score: float) -> str:
    return f"{cell.variant} on {cell.task}, {name} ({run.seed}): return {number_text(score)}"
