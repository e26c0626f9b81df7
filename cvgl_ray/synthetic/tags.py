"""What a drone writes into its photos: its own idea of where it was and where it looked."""

import math
from io import BytesIO

import numpy as np
from PIL import Image

from cvgl_ray.maps.footprint import DIAGONAL_35MM
from cvgl_ray.maps.metadata import PhotoInfo
from cvgl_ray.maps.metadata_write import exif_bytes, xmp_bytes
from cvgl_ray.synthetic.route import Shot
from cvgl_ray.synthetic.sensor import Picture
from cvgl_ray.synthetic.site import Site

GPS_ERROR_M = 1.5  # standard deviation along each axis
ALTITUDE_ERROR_M = 0.5
YAW_ERROR_DEG = 1.0


def tagged_jpeg(picture: Picture, shot: Shot, first: Shot, site: Site, rng: np.random.Generator) -> bytes:
    """A photo as JPEG with EXIF and XMP; position, altitude and yaw are a little wrong, as a drone's are.

    first: the flight's first photo; it took off from the ground below that.
    """
    view, error = shot.view, rng.normal(0.0, 1.0, 4)
    x, y, up = view.position
    latitude, longitude = site.to_wgs84(x + GPS_ERROR_M * float(error[0]), y + GPS_ERROR_M * float(error[1]))
    convergence, _ = site.grid_north(x, y)
    yaw_error = YAW_ERROR_DEG * float(error[3])
    relative = up - (first.view.position[2] - first.height_m) + ALTITUDE_ERROR_M * float(error[2])
    focal_35mm = view.focal_px * DIAGONAL_35MM / math.hypot(*view.size)
    info = PhotoInfo(
        latitude=latitude,
        longitude=longitude,
        altitude_m=site.altitude_m + up + ALTITUDE_ERROR_M * float(error[2]),
        relative_altitude_m=relative,
        yaw_deg=_signed(shot.course_deg + convergence + yaw_error),
        gimbal_yaw_deg=_signed(math.degrees(view.heading) + convergence + yaw_error),
        gimbal_pitch_deg=math.degrees(view.tilt) - 90,
        gimbal_roll_deg=0.0,
        time=shot.time,
        make="cvgl-ray",
        model="rendered",
        focal_35mm=focal_35mm,
        focal_px=view.focal_px,
    )
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90, exif=exif_bytes(info), xmp=xmp_bytes(info))
    return buffer.getvalue()


def _signed(degrees: float) -> float:
    """An angle in [-180, 180), as drones write yaw."""
    return (degrees + 180) % 360 - 180
