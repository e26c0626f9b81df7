"""Frames of a video as photos, with what the drone's subtitles say of each; needs the extra `video`."""

import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cvgl_ray.catalog.images import is_image
from cvgl_ray.errors import InputError
from cvgl_ray.maps.metadata import PhotoInfo
from cvgl_ray.maps.metadata_write import exif_bytes, xmp_bytes
from cvgl_ray.maps.photos import Photo, list_photos, unique
from cvgl_ray.maps.srt import SrtRecord, parse_srt, record_at

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv")
QUALITY = 95  # of JPEG


def is_video(name: str) -> bool:
    """Whether a file's name is a video's."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def holds_videos(paths: Sequence[str]) -> bool:
    """Whether there is a video among files and in folders of this machine."""
    return any(_videos_at(path) for path in paths)


def list_with_frames(paths: Sequence[str], folder: Path, every_s: float) -> list[Photo]:
    """As `photos.list_photos`, and of the videos among the files and in the folders a frame every `every_s`.

    The frames are written to `folder`. Raises InputError as `list_photos` and `extract_frames`, and where two
    videos have the same path below the folders that were given.
    """
    videos = [_videos_at(path) for path in paths]
    if any(videos):
        unique(video for some in videos for video in some)  # else one's frames would replace the other's
    photos: list[Photo] = []
    for path, some in zip(paths, videos, strict=True):
        frames = [one for name, video in some for one in extract_frames(Path(video), folder, every_s, name)]
        photos += frames if frames and not _holds_photos(Path(path)) else [*frames, *list_photos(path)]
    return unique(photos)


def extract_frames(path: Path, folder: Path, every_s: float, name: str = "") -> list[Photo]:
    """One frame of a video every so many seconds, as JPEG files below `folder`, in order.

    A subtitle file beside the video (the same name, .srt) gives each frame position, height, angles and
    time, as EXIF and XMP. Image ids are `<name>_t<milliseconds>ms.jpg`: a last number, so that the frames of
    a video without subtitles are a flight too. name: the video's, its file's where empty; may have folders.
    Raises InputError if there is no such file, PyAV is not installed, the video cannot be decoded, or
    `every_s` is not positive.
    """
    if not (math.isfinite(every_s) and every_s > 0):
        raise InputError(f"a frame every {every_s} seconds was asked for: give a positive number of seconds")
    if not path.is_file():
        raise InputError(f"there is no video {str(path)!r}: give a file or a folder of this machine")
    records = read_subtitles(path)
    name = name or path.name
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    photos = []
    try:
        for seconds, image in _frames(path, every_s):
            image_id = f"{name}_t{round(1000 * seconds):09d}ms.jpg"
            info = frame_info(records, seconds)
            image.save(folder / image_id, quality=QUALITY, exif=exif_bytes(info), xmp=xmp_bytes(info))
            photos.append(Photo(image_id, str(folder / image_id)))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the video {str(path)!r} cannot be decoded ({error}): give one that FFmpeg reads"
        ) from error
    return photos


def read_subtitles(path: Path) -> list[SrtRecord]:
    """The records beside a video, [] without a subtitle file."""
    for name in (path.with_suffix(".srt"), path.with_suffix(".SRT")):
        if name.exists():
            return parse_srt(name.read_bytes().decode("utf-8", "replace"))
    return []


def frame_info(records: list[SrtRecord], seconds: float) -> PhotoInfo:
    """What the subtitles say of the frame at this moment."""
    record = record_at(records, seconds)
    if record is None:
        return PhotoInfo()
    time = None if record.time is None else record.time + timedelta(seconds=seconds - record.seconds)
    return PhotoInfo(
        latitude=record.latitude,
        longitude=record.longitude,
        altitude_m=record.altitude_m,
        relative_altitude_m=record.relative_altitude_m,
        gimbal_yaw_deg=record.gimbal_yaw_deg,
        gimbal_pitch_deg=record.gimbal_pitch_deg,
        gimbal_roll_deg=record.gimbal_roll_deg,
        time=time,
    )


def _videos_at(path: str) -> list[Photo]:
    """The video that an address names, or those in its folder, by the names that photos would have."""
    if is_video(path) and not Path(path).is_dir():
        return [Photo(Path(path).name, path)]
    found = sorted(file for file in Path(path).rglob("*") if is_video(file.name) and not file.is_dir())
    return [Photo(file.relative_to(path).as_posix(), str(file)) for file in found]


def _holds_photos(path: Path) -> bool:
    return any(is_image(file.name) for file in path.rglob("*"))


def _frames(path: Path, every_s: float) -> Any:
    """(seconds, picture) of the first frame and of each that is the first at or after the next moment."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            "frames of a video need PyAV: install it by pip install 'cvgl-ray[video]'"
        ) from error
    due = 0.0
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise InputError(f"{str(path)!r} holds no video: give a video file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            seconds = float(frame.time or 0.0)
            if seconds + 1e-6 >= due:
                due = (math.floor(seconds / every_s + 1e-6) + 1) * every_s
                yield seconds, frame.to_image()
