"""What photos say of themselves, whoever wrote it and however badly; names, footprints and flights."""

import math
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from cvgl_ray.errors import InputError
from cvgl_ray.maps.flights import Flight, group_flights, paths_of
from cvgl_ray.maps.footprint import footprint
from cvgl_ray.maps.masks import black_surround, is_blank
from cvgl_ray.maps.metadata import PhotoInfo, read_info
from cvgl_ray.maps.metadata_write import exif_bytes, xmp_bytes
from cvgl_ray.maps.photos import list_photos

INFO = PhotoInfo(
    width_px=80,
    height_px=60,
    latitude=-33.856784,
    longitude=151.215297,
    altitude_m=-3.5,
    relative_altitude_m=84.2,
    yaw_deg=-12.5,
    gimbal_yaw_deg=-14.25,
    gimbal_pitch_deg=-89.9,
    gimbal_roll_deg=0.0,
    time=datetime(2026, 5, 4, 13, 14, 15, 250_000),
    make="DJI",
    model="FC3170",
    focal_mm=4.5,
    focal_35mm=24.0,
    focal_px=58.5,
)


def test_what_is_written_is_read_back() -> None:
    back = read_info(_jpeg(INFO))
    assert back.latitude == pytest.approx(INFO.latitude, abs=3e-7)
    assert back.longitude == pytest.approx(INFO.longitude, abs=3e-7)
    assert replace(back, latitude=INFO.latitude, longitude=INFO.longitude) == INFO
    assert back.heading_deg == pytest.approx(345.75)


DJI = {"drone-dji:GimbalYawDegree": "+45.5", "drone-dji:GimbalPitchDegree": "-90.00"}
ANGLES = [
    (DJI, (45.5, -90, None)),
    ({"drone:GimbalPitchDegree": "-60", "drone:GimbalYawDegree": "7"}, (7, -60, None)),  # Autel
    ({"drone-parrot:CameraPitchDegree": "-78.3", "drone-parrot:CameraYawDegree": "9"}, (9, -78.3, None)),
    ({"Camera:Pitch": "66.04", "Camera:Yaw": "2.42", "Camera:Roll": "0"}, (2.42, -23.96, 0)),  # 0 is down
    ({"Camera:Pitch": "0/100", "Camera:Yaw": "0/100", "Camera:Roll": "0/100"}, (None, None, None)),
    ({"drone-dji:GimbalPitchDegree": "+0.00", "drone-dji:GimbalYawDegree": "+0.00"}, (None, None, None)),
    (DJI | {"drone-dji:GimbalRollDegree": "180"}, (225.5, -90, 0)),  # the same direction, turned over
    ({"drone-dji:GimbalPitchDegree": "nan", "drone-dji:GimbalYawDegree": "x"}, (None, None, None)),
]


@pytest.mark.parametrize(("fields", "expected"), ANGLES)
def test_makers_angles_mean_the_same(fields: dict[str, str], expected: tuple[float | None, ...]) -> None:
    attributes = " ".join(f'{name}="{value}"' for name, value in fields.items())
    elements = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    for packet in (f"<x:xmpmeta><a {attributes}/></x:xmpmeta>", f"<rdf:RDF><b>{elements}</b></rdf:RDF>"):
        info = read_info(_jpeg(PhotoInfo()) + packet.encode())  # wherever in the file it stands
        found = (info.gimbal_yaw_deg, info.gimbal_pitch_deg, info.gimbal_roll_deg)
        assert found == pytest.approx(expected)
        assert any("exactly 0" in note for note in info.notes) == ("+0.00" in packet)


def test_heights_above_sea_and_above_take_off_are_told_apart() -> None:
    packet = b'<x:xmpmeta drone-dji:AbsoluteAltitude="+512.3" drone-dji:RelativeAltitude="+99.9"></x:xmpmeta>'
    info = read_info(_jpeg(PhotoInfo()) + packet)
    assert (info.altitude_m, info.relative_altitude_m) == (512.3, 99.9)
    assert read_info(_jpeg(PhotoInfo(altitude_m=80.0))).relative_altitude_m is None


def test_nuls_zero_positions_and_impossible_dates_are_no_facts() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "DJI\0\0\0"
    exif[ExifTags.Base.Model] = "\0junk"
    exif[ExifTags.Base.DateTime] = "2026:05:04 10:00:00\0"
    exif.get_ifd(0x8769)[ExifTags.Base.DateTimeOriginal] = "0000:00:00 00:00:00"
    gps = exif.get_ifd(0x8825)
    gps[ExifTags.GPS.GPSLatitude] = gps[ExifTags.GPS.GPSLongitude] = (0.0, 0.0, 0.0)
    info = read_info(_jpeg(PhotoInfo(), exif.tobytes()))
    assert (info.make, info.model) == ("DJI", None)
    assert info.time == datetime(2026, 5, 4, 10)
    assert info.latitude is None
    assert "no fix" in info.notes[0]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_photos_of_other_kinds_tell_their_exif(kind: str) -> None:
    file = BytesIO()
    Image.new("RGB", (80, 60)).save(file, kind, exif=exif_bytes(INFO))
    info = read_info(file.getvalue())
    assert (info.make, info.width_px, info.time) == ("DJI", 80, INFO.time)
    assert info.latitude == pytest.approx(INFO.latitude, abs=3e-7)


def test_the_orientation_exchanges_width_and_height() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    info = read_info(_jpeg(PhotoInfo(), exif.tobytes()))
    assert (info.width_px, info.height_px) == (60, 80)


def test_no_damage_makes_reading_raise() -> None:
    content, rng = _jpeg(INFO), np.random.default_rng(0)
    for number in range(150):
        junk, at = rng.bytes(rng.integers(41)), rng.integers(len(content))
        info = read_info(content[:at] + junk + (b"" if number % 2 else content[at + len(junk) :]))
        assert info.latitude is None or abs(info.latitude) <= 90


def test_photos_are_named_by_file_or_by_path_below_their_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "day 1/b.JPG", "day 2/b.JPG", ".hidden/c.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_jpeg(INFO))
    photos = list_photos(str(tmp_path))
    assert [photo.image_id for photo in photos] == ["a.jpg", "day 1/b.JPG", "day 2/b.JPG"]
    assert photos[1].info().make == "DJI"
    assert list_photos(str(tmp_path / "day 1" / "b.JPG"))[0].image_id == "b.JPG"
    assert list_photos((tmp_path / "day 1").as_uri())[0].info().make == "DJI"
    both = [str(tmp_path / "day 1"), str(tmp_path / "day 2" / "b.JPG")]
    with pytest.raises(InputError, match=r"two photos are called 'b.JPG'"):
        list_photos(both)
    with pytest.raises(InputError, match=r"two photos are called 'a.jpg'"):
        list_photos([str(tmp_path), str(tmp_path / "a.jpg")])
    for path, sentence in (("none.jpg", "there is no photo"), ("notes.txt", "is no photo of a kind")):
        with pytest.raises(InputError, match=sentence):
            list_photos(str(tmp_path / path))


def test_the_footprint_of_a_camera_straight_down() -> None:
    info = PhotoInfo(width_px=4000, height_px=2250, focal_px=2000, relative_altitude_m=100, gimbal_yaw_deg=90)
    found = footprint(info)
    assert found is not None
    assert found.ground_width_m == pytest.approx(200)
    assert found.centre_offset == pytest.approx((0, 0), abs=1e-9)
    # the image's top looks east: its top left corner is north-east
    assert found.corners is not None
    assert found.corners[0] == pytest.approx((56.25, 100))
    assert found.corners[2] == pytest.approx((-56.25, -100))
    by_film = footprint(replace(info, focal_px=None, focal_35mm=24.0))
    assert by_film is not None
    assert by_film.ground_width_m == pytest.approx(
        100 * math.hypot(36, 24) / 24 * 4000 / math.hypot(4000, 2250)
    )


def test_the_footprint_of_a_tilted_camera_and_of_one_that_sees_the_horizon() -> None:
    info = PhotoInfo(
        width_px=4000,
        height_px=3000,
        focal_px=3000,
        relative_altitude_m=80,
        gimbal_pitch_deg=-60,
        yaw_deg=180,
    )
    found = footprint(info)
    assert found is not None
    assert found.centre_offset == pytest.approx((0, -80 / math.tan(math.radians(60))), abs=1e-9)
    assert found.ground_width_m == pytest.approx(80 / math.sin(math.radians(60)) * 4000 / 3000)
    assert found.corners is not None
    top_left, _, _, bottom_left = found.corners
    assert top_left[0] > bottom_left[0] > 0  # looking south, the left is east, and further away wider
    assert top_left[1] < bottom_left[1]
    higher = footprint(info, height_m=160)
    assert higher is not None
    assert higher.ground_width_m == pytest.approx(2 * found.ground_width_m)
    level = footprint(replace(info, gimbal_pitch_deg=-20))
    assert level is not None
    assert level.corners is None
    assert footprint(replace(info, gimbal_pitch_deg=10)) is None
    assert footprint(replace(info, focal_px=None)) is None
    assert footprint(replace(info, relative_altitude_m=-2.0)) is None


def test_flights_are_told_apart_by_gaps_in_time_and_ordered() -> None:
    start = datetime(2026, 5, 4, 12)
    seconds = [0, 2, 4, 1000, 1003, None, None, None]
    names = ["c.jpg", "b.jpg", "a.jpg", "e.jpg", "d.jpg", "v2_10.jpg", "v2_9.jpg", "sketch.png"]
    times = [None if second is None else start + timedelta(seconds=second) for second in seconds]
    shuffled = np.random.default_rng(3).permutation(len(names))
    flights = group_flights([names[i] for i in shuffled], [times[i] for i in shuffled])
    assert [flight.image_ids for flight in flights] == [
        ("c.jpg", "b.jpg", "a.jpg"),
        ("e.jpg", "d.jpg"),
        ("v2_9.jpg", "v2_10.jpg"),
        ("sketch.png",),
    ]
    assert flights[1].seconds == (0, 3)
    assert [flight.ordered for flight in flights] == [True, True, True, False]
    assert group_flights([], []) == []


def test_fill_around_a_picture_is_seen_and_thin_dark_or_small_white_things_are_not() -> None:
    picture = np.random.default_rng(0).integers(60, 200, (200, 300, 3)).astype(np.uint8)
    whole = picture.copy()
    whole[50:53] = 0  # a drawn line
    whole[100:115, 100:115] = 1  # a shadow
    whole[120:150, 120:150] = 255  # a roof in the sun
    assert black_surround(whole).all()
    for fill in (0, 3, 255):
        framed = picture.copy()
        framed[:, :40] = fill
        framed[np.tril_indices(200, -120)] = fill
        valid = black_surround(framed)
        assert not valid[:, :40].any()
        assert valid[:, 90:].all()
    assert not is_blank(picture)
    assert is_blank(np.full((50, 60, 3), 7, np.uint8))


def _jpeg(info: PhotoInfo, exif: bytes | None = None) -> bytes:
    file = BytesIO()
    exif = exif_bytes(info) if exif is None else exif
    Image.new("RGB", (80, 60), (90, 120, 60)).save(file, "JPEG", exif=exif, xmp=xmp_bytes(info))
    return file.getvalue()


def test_paths_are_the_ordered_flights_by_seconds_or_numbers():
    flights = [
        Flight("timed", ("b.jpg", "a.jpg", "gone.jpg"), (0.0, 2.5, 9.0), True),
        Flight("numbered", ("f_0010.jpg", "f_0040.jpg"), None, True),
        Flight("unordered", ("x.jpg",), None, False),
    ]
    names = ["a.jpg", "f_0040.jpg", "x.jpg", "b.jpg", "f_0010.jpg"]
    assert paths_of(names, flights) == ([[3, 0], [4, 1]], [2.5, 40.0, 0.0, 0.0, 10.0])
