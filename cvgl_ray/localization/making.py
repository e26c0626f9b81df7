"""Cells that nobody has made yet are made, and kept as soon as they are: an interrupted run goes on."""

from collections.abc import Sequence

from cvgl_ray.localization.cell_files import MadeBlock, MapCellFiles, PhotoCellFiles
from cvgl_ray.localization.photo_files import PhotoFile
from cvgl_ray.localization.work import Work
from cvgl_ray.progress import progress

PART_BLOCKS = 64  # of a file of a map's cells: what an interrupted run loses at most


def make_photos(
    photos: Sequence[PhotoFile], files: PhotoCellFiles, work: Work, headings: Sequence[float]
) -> dict[str, str]:
    """Make the photos' cells that are lacking. Returns, by image_id, why photos cannot be used."""
    sizes = files.lacking(photo.digest for photo in photos)
    first = {photo.digest: photo for photo in reversed(photos)}  # copies of a file are made once
    lacking = [(first[digest], sides) for digest, sides in sizes.items()]
    unusable = {}
    with progress("photo cells", len(lacking), "photos") as advance:
        for made in work.photos(lacking, headings):
            if made.reason:
                unusable[made.photo.digest] = made.reason
            else:
                files.add(made.photo.digest, made.photo.image_id, made.cells)
            advance(1)
    return {photo.image_id: unusable[photo.digest] for photo in photos if photo.digest in unusable}


def make_blocks(files: MapCellFiles, work: Work) -> None:
    """Make the map's cells that are lacking, written part by part."""
    lacking, held = files.lacking(), list[MadeBlock]()
    with progress("map cells", len(lacking), "blocks") as advance:
        for block in work.blocks(lacking):
            held.append(block)
            if len(held) == PART_BLOCKS:
                files.add(held)
                held = []
            advance(1)
    if held:
        files.add(held)
