"""The metadata that `metadata.read_info` reads back: for rendered photos and for frames of a video."""

from fractions import Fraction

from PIL import ExifTags, Image

from cvgl_ray.maps.metadata import PhotoInfo

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"{fields}/>'
    "</rdf:RDF></x:xmpmeta>"
)


def exif_bytes(info: PhotoInfo) -> bytes:
    """EXIF for Pillow's `save(exif=...)`: position (to 3 cm), altitude, time, camera, focal lengths."""
    exif = Image.Exif()
    texts = {ExifTags.Base.Make: info.make, ExifTags.Base.Model: info.model}
    exif.update({tag: text for tag, text in texts.items() if text})
    details = exif.get_ifd(0x8769)
    if info.time is not None:
        details[ExifTags.Base.DateTimeOriginal] = info.time.strftime("%Y:%m:%d %H:%M:%S")
        details[ExifTags.Base.SubsecTimeOriginal] = f"{info.time.microsecond:06d}"
    if info.focal_mm is not None:
        details[ExifTags.Base.FocalLength] = info.focal_mm
    if info.focal_35mm is not None:
        details[ExifTags.Base.FocalLengthIn35mmFilm] = round(info.focal_35mm)
    gps = exif.get_ifd(0x8825)
    if info.latitude is not None and info.longitude is not None:
        gps[ExifTags.GPS.GPSLatitudeRef] = "S" if info.latitude < 0 else "N"
        gps[ExifTags.GPS.GPSLatitude] = _sexagesimal(info.latitude)
        gps[ExifTags.GPS.GPSLongitudeRef] = "W" if info.longitude < 0 else "E"
        gps[ExifTags.GPS.GPSLongitude] = _sexagesimal(info.longitude)
    if info.altitude_m is not None:
        gps[ExifTags.GPS.GPSAltitudeRef] = b"\x01" if info.altitude_m < 0 else b"\x00"
        gps[ExifTags.GPS.GPSAltitude] = abs(info.altitude_m)
    return exif.tobytes()


def xmp_bytes(info: PhotoInfo) -> bytes:
    """An XMP packet under DJI's names for Pillow's `save(xmp=...)` of a JPEG: altitudes and angles."""
    fields = {
        "AbsoluteAltitude": info.altitude_m,
        "RelativeAltitude": info.relative_altitude_m,
        "FlightYawDegree": info.yaw_deg,
        "GimbalYawDegree": info.gimbal_yaw_deg,
        "GimbalPitchDegree": info.gimbal_pitch_deg,
        "GimbalRollDegree": info.gimbal_roll_deg,
        "CalibratedFocalLength": info.focal_px,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return XMP.format(
        fields="".join(f' drone-dji:{name}="{value:+.3f}"' for name, value in known.items())
    ).encode()


def _sexagesimal(degrees: float) -> tuple[Fraction, Fraction, Fraction]:
    thousandths = round(abs(degrees) * 3_600_000)  # of an arc second: 3 cm
    minutes, rest = divmod(thousandths, 60_000)
    return Fraction(minutes // 60), Fraction(minutes % 60), Fraction(rest, 1000)
