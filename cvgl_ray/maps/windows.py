"""A window of a raster as a picture; where the raster lies does not matter, and it need not be told."""

import numpy as np
from PIL import Image

from cvgl_ray.errors import InputError
from cvgl_ray.maps.files import DamagedError, dataset, stamp
from cvgl_ray.maps.grid import Grid
from cvgl_ray.maps.raster import of_dataset
from cvgl_ray.storage.windows import PixelBox


def window_picture(file: str, box: PixelBox) -> Image.Image:
    """The pixels of a window of an 8-bit raster of 1 to 4 bands, by path or URI, as RGB; nodata is black.

    Raises OSError for a file that is missing, damaged or of another depth, and for a window beyond it.
    """
    try:
        known = stamp(file)
        with dataset(file, known) as source:
            size = source.width, source.height
            raster = of_dataset(source, file, known, Grid(*size, "", None, ()))
        if box.column + box.width > size[0] or box.row + box.height > size[1]:
            raise OSError(f"the window {tuple(box)} leaves the raster of {size[0]} x {size[1]} px")
        if raster.dtype != "uint8":
            raise OSError(f"the raster holds {raster.dtype}, and windows of 8-bit rasters are read")
        values, valid, _ = raster.read_block(box.column, box.row, box.width, box.height, 1)
    except (InputError, DamagedError) as error:
        raise OSError(str(error)) from error
    rgb = np.where(valid, values, 0) if len(values) == 3 else np.repeat(np.where(valid, values, 0), 3, axis=0)
    return Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))
