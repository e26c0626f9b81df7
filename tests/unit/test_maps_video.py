"""DJI's subtitles in each of their spellings, and frames of a video with what they say."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvgl_ray.config import Config
from cvgl_ray.errors import InputError
from cvgl_ray.localization.request import Request
from cvgl_ray.localization.run import localize_map
from cvgl_ray.maps import video
from cvgl_ray.maps.flights import Flight, group_flights
from cvgl_ray.maps.srt import parse_srt, record_at
from cvgl_ray.maps.video import extract_frames, is_video, list_with_frames
from cvgl_ray.storage import run_folder

MODERN = """1
00:00:00,000 --> 00:00:00,033
<font size="28">FrameCnt: 1, DiffTime: 33ms
2025-02-04 15:25:13.561
[iso: 100] [shutter: 1/2500.0] [focal_len: 24.00] [latitude: -38.074966] [longitude: 141.845763] [rel_alt: 40.800 abs_alt: 111.639] [gb_yaw: 130.6 gb_pitch: -26.5 gb_roll: 0.0] </font>

2
00:00:01,000 --> 00:00:01,033
<font size="28">FrameCnt: 31, DiffTime: 33ms
2025-02-04 15:25:14.561
[latitude: -38.074900] [longitude: 141.845700] [rel_alt: 41.800 abs_alt: 112.639] </font>
"""  # noqa: E501  as a drone writes it


def test_modern_brackets() -> None:
    first, second = parse_srt("\ufeff" + MODERN.replace("\n", "\r\n"))
    assert (first.seconds, second.seconds) == (0, 1)
    assert (first.latitude, first.longitude) == (-38.074966, 141.845763)
    assert (first.relative_altitude_m, first.altitude_m) == (40.8, 111.639)
    assert (first.gimbal_yaw_deg, first.gimbal_pitch_deg, first.gimbal_roll_deg) == (130.6, -26.5, 0)
    assert first.time == datetime(2025, 2, 4, 15, 25, 13)
    assert second.gimbal_pitch_deg is None
    assert record_at([first, second], 0.9) == second
    assert record_at([first, second], 9.0) is None


@pytest.mark.parametrize(
    ("text", "position", "heights"),
    [
        ("[latitude : 31.45] [longtitude : 74.40] [altitude: 213.98]", (31.45, 74.40), (None, 213.98)),
        ("GPS(149.0251,-20.2533,16) BAROMETER:1.9", (-20.2533, 149.0251), (1.9, None)),
        ("F/2.8, SS 200, GPS (-58.8500, -34.2400, 15), D 24.26m, H 85.80m", (-34.24, -58.85), (85.8, None)),
        ("GPS(36.6146,-6.1120,0.0M) BAROMETER:31.2M", (36.6146, -6.1120), (31.2, None)),
        ("GPS(0.0,0.0,0)", (None, None), (None, None)),
        ("[latitude: 95.5] [longitude: 3]", (None, None), (None, None)),
        ("Just a film", (None, None), (None, None)),
    ],
)
def test_older_spellings(
    text: str, position: tuple[float | None, ...], heights: tuple[float | None, ...]
) -> None:
    (record,) = parse_srt(f"7\n00:01:02,500 --> 00:01:03,500\n{text}\n")
    assert record.seconds == 62.5
    assert (record.latitude, record.longitude) == position
    assert (record.relative_altitude_m, record.altitude_m) == heights


def test_what_is_no_subtitle_gives_no_record() -> None:
    for text in ("", "\0\1\2", "1\n\n2\n\n", MODERN.replace("-->", "to")):
        assert parse_srt(text) == []


def test_a_video_is_refused_in_a_sentence(tmp_path: Path) -> None:
    assert is_video("DJI_0001.MP4")
    assert not is_video("DJI_0001.JPG")
    with pytest.raises(InputError, match="positive number of seconds"):
        extract_frames(tmp_path / "clip.mp4", tmp_path / "frames", 0)
    with pytest.raises(InputError, match=r"there is no video '.*clip\.mp4'"):
        list_with_frames([str(tmp_path / "clip.mp4")], tmp_path / "frames", 1.0)
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"cannot be decoded|need PyAV"):
        extract_frames(tmp_path / "clip.mp4", tmp_path / "frames", 1.0)


def test_two_videos_of_one_name_are_refused_or_told_apart_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for card in ("a", "b"):
        (tmp_path / card).mkdir()
        (tmp_path / card / "DJI_0001.MP4").write_bytes(b"")
    with pytest.raises(InputError, match=r"two photos are called 'DJI_0001\.MP4'"):
        list_with_frames([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "frames", 1.0)
    frames = iter([(0.0, Image.new("RGB", (4, 4), colour)) for colour in ("red", "blue")])
    monkeypatch.setattr(video, "_frames", lambda *_: [next(frames)])
    photos = list_with_frames([str(tmp_path)], tmp_path.parent / "frames", 1.0)
    assert [photo.image_id for photo in photos] == [
        f"{card}/DJI_0001.MP4_t000000000ms.jpg" for card in ("a", "b")
    ]
    colours = [Image.open(photo.uri).getpixel((1, 1)) for photo in photos]
    assert colours[0][0] > 200 > colours[0][2]
    assert colours[1][2] > 200 > colours[1][0]


def test_no_frame_goes_into_a_folder_that_another_run_holds(tmp_path: Path) -> None:
    asked = Request(["none.tif"], ["none.mp4"])
    with run_folder.opened(tmp_path / "run"), pytest.raises(InputError, match="another run is writing to"):
        localize_map(Config(), asked, tmp_path / "run")


def test_frames_of_a_video_carry_their_subtitles(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(25):
            picture = np.full((120, 160, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    (tmp_path / "clip.SRT").write_text(MODERN)
    photos = extract_frames(clip, tmp_path / "frames", 1.0)
    assert [photo.image_id for photo in photos] == [
        f"clip.mp4_t{second:06d}000ms.jpg" for second in (0, 1, 2)
    ]
    assert group_flights(["clip.mp4_t000001000ms.jpg", "clip.mp4_t000000000ms.jpg"], [None] * 2) == [
        Flight("clip.mp4_t", ("clip.mp4_t000000000ms.jpg", "clip.mp4_t000001000ms.jpg"), None, True)
    ]
    (tmp_path / "still.jpg").write_bytes(Path(photos[0].uri).read_bytes())
    names = [
        photo.image_id
        for photo in list_with_frames([str(tmp_path / "still.jpg"), str(clip)], tmp_path / "again", 2.0)
    ]
    assert names == [photos[0].image_id, photos[2].image_id, "still.jpg"]
    infos = [photo.info() for photo in photos]
    assert infos[0].latitude == pytest.approx(-38.074966, abs=3e-7)
    assert infos[1].relative_altitude_m == 41.8
    assert infos[2].time == datetime(2025, 2, 4, 15, 25, 15)
    assert (infos[0].width_px, infos[0].height_px) == (160, 120)
