"""What a photo says of itself: EXIF, and the XMP of DJI, Autel, Parrot and Pix4D's convention.

It is shown to the user and used only where the user asks for it. Whatever a field holds, reading never
raises: a field that makes no sense is None and is named in the notes.
"""

import io
import math
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

from cvgl_ray.catalog.images import readable
from cvgl_ray.maps.xmp import Gimbal, drone_number, gimbal, number, read_xmp

MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # EXIF's FocalPlaneResolutionUnit
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class PhotoInfo:
    """A photo's metadata; None where it says nothing."""

    width_px: int | None = None  # upright, after the EXIF orientation
    height_px: int | None = None
    latitude: float | None = None  # degrees WGS84, of the camera
    longitude: float | None = None
    altitude_m: float | None = None  # above sea, or the ellipsoid: makers differ
    relative_altitude_m: float | None = None  # above the take-off point, not above the ground below
    yaw_deg: float | None = None  # the aircraft's, clockwise from north
    gimbal_yaw_deg: float | None = None  # the camera's, clockwise from north
    gimbal_pitch_deg: float | None = None  # 0 at the horizon, -90 straight down
    gimbal_roll_deg: float | None = None
    time: datetime | None = None  # the camera's clock, without a time zone
    make: str | None = None
    model: str | None = None
    focal_mm: float | None = None
    focal_35mm: float | None = None  # of a 36 x 24 mm frame with the same diagonal angle of view
    focal_px: float | None = None  # calibrated, or by the sensor's pixels per mm
    notes: tuple[str, ...] = ()  # what was found odd and left out

    @property
    def heading_deg(self) -> float | None:
        """The direction of the image's top, in [0, 360): the camera's, else the aircraft's."""
        yaw = self.gimbal_yaw_deg if self.gimbal_yaw_deg is not None else self.yaw_deg
        return None if yaw is None else yaw % 360


def read_info(content: bytes) -> PhotoInfo:
    """The metadata of an image file's bytes. Never raises: what cannot be read is not known."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of corrupt EXIF
            with Image.open(io.BytesIO(content), formats=readable()) as image:
                exif = image.getexif()
                return _info(image.size, exif, _ifd(exif, 0x8769), _ifd(exif, 0x8825), read_xmp(content))
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error, ...
        return PhotoInfo(notes=(f"its metadata cannot be read ({error})",))


def _info(
    size: tuple[int, int], exif: Any, details: dict[int, Any], gps: dict[int, Any], xmp: dict[str, str]
) -> PhotoInfo:
    notes: list[str] = []
    width, height = size[::-1] if exif.get(ExifTags.Base.Orientation) in TURNED else size
    latitude, longitude = _position(gps, xmp, notes)
    angles = _gimbal(xmp, notes)
    focal_mm = _positive(details.get(ExifTags.Base.FocalLength))
    return PhotoInfo(
        width_px=width,
        height_px=height,
        latitude=latitude,
        longitude=longitude,
        altitude_m=_altitude(gps, xmp),
        relative_altitude_m=_first(
            drone_number(xmp, "relativealtitude"), number(xmp, "camera:abovegroundaltitude")
        ),
        yaw_deg=_first(
            drone_number(xmp, "flightyawdegree"),
            number(xmp, "drone-parrot:droneyawdegree"),
            _number(gps.get(ExifTags.GPS.GPSImgDirection)),
        ),
        gimbal_yaw_deg=angles.yaw,
        gimbal_pitch_deg=angles.pitch,
        gimbal_roll_deg=angles.roll,
        time=_time(exif, details, gps, notes),
        make=_text(exif.get(ExifTags.Base.Make)),
        model=_text(exif.get(ExifTags.Base.Model)),
        focal_mm=focal_mm,
        focal_35mm=_positive(details.get(ExifTags.Base.FocalLengthIn35mmFilm)),
        focal_px=_focal_px(details, xmp, focal_mm, max(size)),
        notes=tuple(notes),
    )


def _position(
    gps: dict[int, Any], xmp: dict[str, str], notes: list[str]
) -> tuple[float, float] | tuple[None, None]:
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if latitude is None or longitude is None:
        latitude = drone_number(xmp, "gpslatitude")
        longitude = drone_number(xmp, "gpslongitude", "gpslongtitude")
    if latitude is None or longitude is None:
        return None, None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        notes.append(f"GPS latitude {latitude}, longitude {longitude} are no degrees")
        return None, None
    if latitude == 0 and longitude == 0:
        notes.append("GPS latitude and longitude are 0: the receiver had no fix")
        return None, None
    return latitude, longitude


def _altitude(gps: dict[int, Any], xmp: dict[str, str]) -> float | None:
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    if altitude is None:
        return drone_number(xmp, "absolutealtitude")
    below = gps.get(ExifTags.GPS.GPSAltitudeRef, 0) in (1, b"\x01", "1")
    return -abs(altitude) if below else altitude


def _gimbal(xmp: dict[str, str], notes: list[str]) -> Gimbal:
    angles = gimbal(xmp)
    if angles.pitch == 0:
        # A gimbal at exactly 0.00 looks at the horizon, where no map is: firmware writes it for "not known".
        notes.append("the gimbal's pitch is exactly 0, taken as not set")
        angles = angles._replace(pitch=None, yaw=None if angles.yaw == 0 else angles.yaw)
    if angles.pitch is not None and angles.yaw is not None and abs(angles.roll or 0) > 90:
        # Near straight down a gimbal's angles flip: the same direction of view, written the other way round.
        notes.append("the gimbal's roll is beyond 90 degrees, its angles are turned over")
        roll = (angles.roll or 0) % 360 - 180
        angles = Gimbal((angles.yaw + 180) % 360, -180 - angles.pitch, roll)
    return angles


def _time(exif: Any, details: dict[int, Any], gps: dict[int, Any], notes: list[str]) -> datetime | None:
    for tag, source in ((ExifTags.Base.DateTimeOriginal, details), (ExifTags.Base.DateTime, exif)):
        text = _text(source.get(tag))
        if text and any(digit in text for digit in "123456789"):
            try:
                time = datetime.strptime(text[:19].replace("-", ":"), "%Y:%m:%d %H:%M:%S")
            except ValueError:
                notes.append(f"the time {text[:40]!r} cannot be read")
                continue
            fraction = _text(details.get(ExifTags.Base.SubsecTimeOriginal)) or ""
            return time.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction.isdecimal() else time
    clock, date = gps.get(ExifTags.GPS.GPSTimeStamp), _text(gps.get(ExifTags.GPS.GPSDateStamp))
    try:
        hour, minute, second = (float(part) for part in clock or ())
        day = datetime.strptime((date or "").replace("-", ":"), "%Y:%m:%d")
        return day.replace(hour=int(hour), minute=int(minute), second=int(second))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


def _focal_px(
    details: dict[int, Any], xmp: dict[str, str], focal_mm: float | None, width: int
) -> float | None:
    calibrated = drone_number(xmp, "calibratedfocallength")
    if calibrated and 0.2 * width < calibrated < 20 * width:  # some firmware writes millimetres
        return calibrated
    per_unit = _positive(details.get(ExifTags.Base.FocalPlaneXResolution))
    unit = MM_PER_UNIT.get(details.get(ExifTags.Base.FocalPlaneResolutionUnit, 2), 25.4)
    if focal_mm and per_unit:
        focal = focal_mm * per_unit / unit
        return focal if 0.2 * width < focal < 20 * width else None
    return None


def _ifd(exif: Any, tag: int) -> dict[int, Any]:
    try:
        return dict(exif.get_ifd(tag))
    except Exception:  # as in `read_info`: one broken directory says nothing against the other
        return {}


def _degrees(value: Any, reference: Any, negative: str) -> float | None:
    try:
        parts = [float(part) for part in value]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not parts or not all(math.isfinite(part) for part in parts):
        return None
    degrees = sum(part / 60**power for power, part in enumerate(parts[:3]))
    return -degrees if (_text(reference) or "").upper().startswith(negative) else degrees


def _number(value: Any) -> float | None:
    try:
        plain = float(value[0] if isinstance(value, tuple) else value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError, OverflowError):
        return None
    return plain if math.isfinite(plain) else None


def _positive(value: Any) -> float | None:
    plain = _number(value)
    return plain if plain and plain > 0 else None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _text(value: Any) -> str | None:
    """A string without what follows its first NUL."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return value.split("\0", 1)[0].strip() or None
