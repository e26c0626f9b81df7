"""A drone's XMP, read as it is written: as attributes or as elements, sometimes with errors in its XML."""

import re
from typing import NamedTuple

PACKET = re.compile(rb"<(x:xmpmeta|rdf:RDF)\b.*?</\1", re.DOTALL)
FIELD = re.compile(
    rb"([\w-]+):(\w+)\s*=\s*[\"']([^\"'<>]{1,200})[\"']|<([\w-]+):(\w+)>\s*([^<>]{1,200}?)\s*</"
)
NUMBER = re.compile(r"^\s*([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?:\s*/\s*(\d+(?:\.\d*)?))?\s*$")

# DJI's names; Autel writes them under its own prefixes, one with DJI's spelling mistake.
PREFIXES = ("drone-dji", "drone", "autel-drone", "autel", "auteldrone")


class Gimbal(NamedTuple):
    """A camera's angles in degrees: yaw from north, pitch 0 at the horizon and -90 straight down, roll."""

    yaw: float | None
    pitch: float | None
    roll: float | None


def read_xmp(content: bytes) -> dict[str, str]:
    """The fields of a file's XMP packets as "prefix:name", both in lower case; the first of a name counts."""
    fields: dict[str, str] = {}
    for packet in PACKET.finditer(content):
        for match in FIELD.finditer(content, *packet.span()):
            prefix, name, value = match.group(1, 2, 3) if match.group(1) else match.group(4, 5, 6)
            key = f"{prefix.decode('ascii', 'replace')}:{name.decode('ascii', 'replace')}".lower()
            fields.setdefault(key, value.decode("utf-8", "replace").strip("\0 \t\r\n"))
    return fields


def number(fields: dict[str, str], *names: str) -> float | None:
    """The first of these fields that is a number; also fractions such as "12/100". Names in lower case."""
    for name in names:
        match = NUMBER.match(fields.get(name, ""))
        if match and float(match.group(2) or 1):
            return float(match.group(1)) / float(match.group(2) or 1)
    return None


def drone_number(fields: dict[str, str], *names: str) -> float | None:
    """The first of these fields of DJI's or Autel's; names in lower case, without a prefix."""
    return number(fields, *(f"{prefix}:{name}" for name in names for prefix in PREFIXES))


def gimbal(fields: dict[str, str]) -> Gimbal:
    """The camera's angles, whoever wrote them.

    DJI, Autel's newer firmware and Parrot say pitch -90 for straight down; the fields `Camera:Pitch` of
    Pix4D's convention (senseFly, Parrot's Sequoia, Autel's older firmware) say 0.
    """
    found = Gimbal(*(drone_number(fields, f"gimbal{axis}degree") for axis in ("yaw", "pitch", "roll")))
    if found.pitch is None:
        found = Gimbal(
            *(number(fields, f"drone-parrot:camera{axis}degree") for axis in ("yaw", "pitch", "roll"))
        )
    if found.pitch is None:
        yaw, pitch, roll = (number(fields, f"camera:{axis}") for axis in ("yaw", "pitch", "roll"))
        if pitch is not None and (yaw, pitch, roll) != (0, 0, 0):
            return Gimbal(yaw, pitch - 90, roll)
    return found
