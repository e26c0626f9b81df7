"""Cells on one node's disk, read on all nodes: as files where these are seen, else asked of that node."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from cvgl_ray.alignment.flight import Levels, Photos
from cvgl_ray.distributed.answers import TRIES
from cvgl_ray.distributed.resources import alive_nodes, this_node
from cvgl_ray.errors import GaveUpError
from cvgl_ray.localization.survey import Shard, Survey

LIMIT_S = 600.0  # for the cells of one shard, or of one batch of photos


class CellServer:
    """Lets a survey, or a data set's stores, read cells on the node that has them."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def call(self, name: str, *arguments: Any) -> Any:
        """What one of the reader's methods gives."""
        return getattr(self.reader, name)(*arguments)


@dataclass(frozen=True)
class ServedSurvey(Survey):
    """A survey whose cells another node reads."""

    server: Any = None
    first: int = 0  # of its photos, among those of the server

    def of(self, rows: slice) -> Survey:
        return replace(super().of(rows), first=self.first + rows.start)  # type: ignore[call-arg]

    def _photos(self, rows: slice) -> Photos:
        wanted = slice(self.first + rows.start, self.first + rows.stop)
        found: Photos = asked(self.server.call.remote("photos", wanted))
        return found

    def _levels(self, shard: Shard) -> Levels:
        found: Levels = asked(self.server.call.remote("levels", shard))
        return found


def asked(answer: ray.ObjectRef) -> Any:
    """What a server answers. Raises GaveUpError where it takes longer than any reading does."""
    try:
        return ray.get(answer, timeout=LIMIT_S)
    except GetTimeoutError as error:
        raise GaveUpError(
            f"cells were not read within {LIMIT_S:.0f} s on the node whose disk holds them: put --output, or"
            " the cache, on a disk that all nodes see"
        ) from error


def start_server(reader: Any) -> Any:
    """The server on this process's node, of a survey or stores, or of a reference to them.

    None where there is no other node.
    """
    if len(alive_nodes()) == 1:
        return None
    actor: Any = ray.remote(max_restarts=TRIES, max_task_retries=TRIES)(CellServer)
    return actor.options(**this_node()).remote(reader)


def readable(survey: Survey, paths: Sequence[Path], server: Any) -> Survey:
    """The survey as it can be read on this node. paths: of all its files, whose names tell their content."""
    if server is None or all(path.exists() for path in paths):
        return survey
    return served(survey, server)


def served(survey: Survey, server: Any) -> ServedSurvey:
    """The survey, read by its server."""
    known = {field.name: getattr(survey, field.name) for field in fields(survey)}
    return ServedSurvey(**known, server=server)
