"""After the coarse search of a large map: each photo's proposals are looked at again in fine cells."""

from collections.abc import Sequence

import torch

from cvgl_ray.alignment.adaptation import Adapted
from cvgl_ray.alignment.flight import decide
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.proposals import Look, fine_scale
from cvgl_ray.alignment.scales import UPSAMPLED, Scale
from cvgl_ray.config import Cells
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.localization.survey import Survey
from cvgl_ray.localization.work import Proposed, Work
from cvgl_ray.progress import progress


def second_look(
    adapted: Adapted,
    photos: Sequence[PhotoFile],
    survey: Survey,
    cells: Cells,
    headings: Sequence[float],
    work: Work,
) -> tuple[Adapted, list[Scale]]:
    """What was found, with a last round of fine cells, and the scales of that round."""
    finest = survey.map_files.geomap.metres_per_pixel / UPSAMPLED
    fine = [fine_scale(scale, cells.side_px, finest) for scale in survey.scales]
    larger = max(scale.side_px for scale in fine) / max(scale.side_px for scale in survey.scales)
    look = Look(survey.scales, fine, headings, adapted.adapter, round(larger**2 * survey.most))
    coarse, found = adapted.found.peaks, []
    asked = [
        Proposed(photo, Peaks(*(column[number : number + 1] for column in coarse)))
        for number, photo in enumerate(photos)
    ]
    with progress("looking again", len(asked), "photos") as advance:
        for peaks in work.looks(asked, look):
            found.append(peaks)
            advance(1)
    together = Peaks(*(torch.cat(columns) for columns in zip(*found, strict=True)))
    return adapted._replace(rounds=[*adapted.rounds, decide([together], fine)]), fine
