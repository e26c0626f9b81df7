"""Which trial of a sweep is chosen: by the label-free score alone."""

from collections.abc import Mapping

from cvgl_ray.errors import InputError
from cvgl_ray.tuning.journal import Record


def choose(records: Mapping[int, Record]) -> int:
    """The number of the complete trial with the highest label-free score; of equal ones the first.

    Raises InputError where none is complete.
    """
    complete = {n: record.score for n, record in sorted(records.items()) if record.ended == "complete"}
    if not complete:
        reasons = [record.reason for record in records.values() if record.reason] or ["none was complete"]
        raise InputError(f"no trial of the sweep ended well; the first failure: {reasons[0]}")
    return max(complete, key=lambda number: complete[number] or 0.0)
