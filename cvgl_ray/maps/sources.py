"""What lies behind the addresses of a map: raster files, tile folders, images with a table of corners."""

from collections.abc import Sequence

from pyarrow import fs

from cvgl_ray.errors import InputError
from cvgl_ray.maps.corners import Corner, place, read_corners
from cvgl_ray.maps.files import FileStamp, check_complete, dataset, stamp, stamp_of
from cvgl_ray.maps.grid import check_crs
from cvgl_ray.maps.raster import Raster, of_dataset, open_raster
from cvgl_ray.maps.xyz import TILE, TileFolder, open_tiles
from cvgl_ray.storage.filesystem import join, resolve

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".mbtiles")
FOUR_WAYS = (
    "give a GeoTIFF with a CRS and a transform or ground control points, a folder of XYZ tiles (z/x/y.png),"
    " an image with a world file and --crs, or a folder of images with a CSV of their corners' coordinates"
)

Source = Raster | TileFolder


def open_sources(paths: Sequence[str], crs: str = "") -> tuple[list[Source], tuple[str, ...]]:
    """The sources of a map and what is to be said of them.

    crs: of the files that name none, and in which images with a table of corners are straight.
    Raises InputError for an address without a raster, a named file without a georeference, a faulty table
    and an unknown CRS.
    """
    if crs:
        check_crs(crs)
    if not paths:
        raise InputError(f"no map is named: {FOUR_WAYS}")
    sources: list[Source] = []
    notes: list[str] = []
    for path in paths:
        if _is_folder(path):
            found, said = _open_folder(path, crs)
            sources += found
            notes += said
        else:
            raster = open_raster(path, crs)
            if raster is None:
                raise InputError(f"the map {path!r} has no georeference: {FOUR_WAYS}")
            sources.append(raster)
    return sources, tuple(notes)


def _open_folder(folder: str, crs: str) -> tuple[list[Source], tuple[str, ...]]:
    files = _list_files(folder)
    for name, _ in files:
        if "/" not in name and name.lower().endswith(".csv"):
            corners = read_corners(join(folder, name))
            if corners is not None:
                return _open_cornered(folder, name, corners, crs)
    tiles = open_tiles(folder, files, flipped=any(name == "tilemapresource.xml" for name, _ in files))
    rasters = [name for name, _ in files if name.lower().endswith(RASTERS)]
    if tiles is not None:
        others = [name for name in rasters if not TILE.search(name)]
        said = (f"{others[0]!r} and all else that is no tile is left out of {folder!r}",) if others else ()
        return [tiles[0]], (*tiles[1], *said)
    addresses = [join(folder, name) for name in rasters]
    sources: list[Source] = []
    bare: list[str] = []
    notes: list[str] = []
    for address in addresses:
        try:
            raster = open_raster(address, crs)
        except InputError as error:
            notes.append(f"left out: {error}")
            continue
        if raster is None:
            bare.append(address)
        else:
            sources.append(raster)
    if sources:
        notes += [f"{address!r} is left out: it has no georeference" for address in bare]
        return sources, tuple(notes)
    if notes:
        raise InputError(f"none of the {len(addresses)} rasters in {folder!r} can be used; {notes[0]}")
    what = f"none of the {len(bare)} rasters in it has a georeference" if bare else "it holds no raster"
    raise InputError(f"the map folder {folder!r} cannot be used, {what}: {FOUR_WAYS}")


def _open_cornered(
    folder: str, table: str, corners: dict[str, Corner], crs: str
) -> tuple[list[Source], tuple[str, ...]]:
    sources: list[Source] = []
    notes: list[str] = []
    for name, corner in corners.items():
        address = join(folder, name)
        try:
            known = stamp(address)
            check_complete(address)
            with dataset(address, known) as source:
                grid = place(name, (source.width, source.height), corner, crs)
                sources.append(of_dataset(source, address, known, grid))
        except InputError as error:
            if "exchanged" in str(error):
                raise  # of the whole table, not of one image
            notes.append(f"left out: {error}")
    if not sources:
        first = f"; {notes[0]}" if notes else ""
        raise InputError(f"none of the {len(corners)} images in {join(folder, table)!r} can be used{first}")
    return sources, tuple(notes)


def _is_folder(address: str) -> bool:
    filesystem, path = resolve(address)
    try:
        return bool(filesystem.get_file_info(path).type == fs.FileType.Directory)
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"the map {address!r} cannot be reached ({reason}): check the address") from error


def _list_files(folder: str) -> list[tuple[str, FileStamp]]:
    """All files below a folder as (path below it, stamp), sorted; hidden ones are skipped."""
    filesystem, path = resolve(folder)
    below = len(path.rstrip("/")) + 1
    try:
        infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
        files = [(info.path[below:], stamp_of(info)) for info in infos if info.type == fs.FileType.File]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the map folder {folder!r} cannot be listed ({error}): make it readable") from error
    return sorted(entry for entry in files if not any(part.startswith(".") for part in entry[0].split("/")))
