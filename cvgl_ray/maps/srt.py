"""DJI's subtitle files: where the drone was at each moment of a video.

Three generations are read: brackets (`[latitude: 3.4] ... [rel_alt: 20.1 abs_alt: 31.0]`), brackets with
"longtitude", and tuples (`GPS(longitude,latitude,satellites)`, on the Matrice 300"
" `GPS(latitude,longitude,0.0M)`).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

TIMING = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->")
NUMBER = r"\s*:?\s*([+-]?\d+(?:\.\d+)?)"
LATITUDE, LONGITUDE = re.compile(r"\blatitude" + NUMBER), re.compile(r"\blongt?itude" + NUMBER)
TUPLE = re.compile(
    r"GPS\s*\(\s*([+-]?\d+(?:\.\d+)?)\s*,\s*([+-]?\d+(?:\.\d+)?)\s*,\s*([+-]?\d+(?:\.\d+)?)(\s*M)?\s*\)"
)
ABOVE_TAKEOFF = re.compile(r"\b(?:rel_alt|BAROMETER|Hb|H)" + NUMBER)
ABOVE_SEA = re.compile(r"\b(?:abs_alt|altitude)" + NUMBER)
GIMBAL = {axis: re.compile(rf"\bgb_{axis}" + NUMBER) for axis in ("yaw", "pitch", "roll")}
CLOCK = re.compile(r"(\d{4})[-.](\d{1,2})[-.](\d{1,2})\s+(\d{1,2}):(\d\d):(\d\d)")


class SrtRecord(NamedTuple):
    """One moment of a video; None where the file says nothing."""

    seconds: float  # since the video's first frame
    latitude: float | None
    longitude: float | None
    relative_altitude_m: float | None  # above the take-off point
    altitude_m: float | None  # above sea
    gimbal_yaw_deg: float | None
    gimbal_pitch_deg: float | None
    gimbal_roll_deg: float | None
    time: datetime | None  # the drone's clock


def parse_srt(text: str) -> list[SrtRecord]:
    """The records of a subtitle file, by time; blocks without a timing line are left out. Never raises."""
    records = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").lstrip("\ufeff")):
        timing = TIMING.search(block)
        if timing:
            hours, minutes, seconds, fraction = timing.groups()
            at = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000
            records.append(_record(at, block[timing.end() :]))
    return sorted(records, key=lambda record: record.seconds)


def record_at(records: Sequence[SrtRecord], seconds: float, apart_s: float = 1.5) -> SrtRecord | None:
    """The record nearest to a moment, None if that is more than `apart_s` away."""
    nearest = min(records, key=lambda record: abs(record.seconds - seconds), default=None)
    return None if nearest is None or abs(nearest.seconds - seconds) > apart_s else nearest


def _record(seconds: float, block: str) -> SrtRecord:
    latitude, longitude = _position(block)
    return SrtRecord(
        seconds,
        latitude,
        longitude,
        _number(ABOVE_TAKEOFF, block),
        _number(ABOVE_SEA, block),
        _number(GIMBAL["yaw"], block),
        _number(GIMBAL["pitch"], block),
        _number(GIMBAL["roll"], block),
        _clock(block),
    )


def _position(block: str) -> tuple[float, float] | tuple[None, None]:
    latitude, longitude = _number(LATITUDE, block), _number(LONGITUDE, block)
    found = TUPLE.search(block)
    if latitude is None and found:
        first, second = float(found.group(1)), float(found.group(2))
        latitude, longitude = (first, second) if found.group(4) else (second, first)
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):  # no fix yet
        return None, None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else (None, None)


def _number(pattern: re.Pattern[str], block: str) -> float | None:
    match = pattern.search(block)
    return float(match.group(1)) if match else None


def _clock(block: str) -> datetime | None:
    match = CLOCK.search(block)
    try:
        return datetime(*(int(part) for part in match.groups())) if match else None  # type: ignore[arg-type]
    except ValueError:
        return None
