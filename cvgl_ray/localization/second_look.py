"""After the coarse search of a large map: each photo's proposals are looked at again in fine cells."""

from collections.abc import Sequence

import torch

from cvgl_ray.alignment.photo_adapter import CellAdapter
from cvgl_ray.alignment.photo_search import Peaks, merged
from cvgl_ray.alignment.proposals import Look, fine_scale
from cvgl_ray.alignment.scales import UPSAMPLED
from cvgl_ray.config import Cells
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.localization.survey import Survey
from cvgl_ray.localization.work import Proposed, Work
from cvgl_ray.progress import progress


def second_look(
    coarse: Sequence[Peaks],
    photos: Sequence[PhotoFile],
    survey: Survey,
    cells: Cells,
    headings: Sequence[float],
    adapter: CellAdapter,
    work: Work,
) -> Peaks:
    """The photos' peaks in fine cells, near those of the coarse search, which are given by scale."""
    finest = survey.map_files.geomap.metres_per_pixel / UPSAMPLED
    fine = [fine_scale(scale, cells.side_px, finest) for scale in survey.scales]
    larger = max(scale.side_px for scale in fine) / max(scale.side_px for scale in survey.scales)
    look = Look(survey.scales, fine, headings, adapter, round(larger**2 * survey.most))
    peaks = merged(coarse, sum(part.score.shape[1] for part in coarse))
    asked = [
        Proposed(photo, Peaks(*(column[number : number + 1] for column in peaks)))
        for number, photo in enumerate(photos)
    ]
    found = []
    with progress("looking again", len(asked), "photos") as advance:
        for looked in work.looks(asked, look):
            found.append(looked)
            advance(1)
    return Peaks(*(torch.cat(columns) for columns in zip(*found, strict=True)))
