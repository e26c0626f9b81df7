"""The section of a data set's alignment: images laid on each other, cell by cell."""

from typing import Annotated, Literal

from pydantic import Field

from cvgl_ray.config.section import Count, Positive, Section


class Alignment(Section):
    """Queries laid on references by their cells: what may be tried, and what it may take."""

    use: Literal["auto", "yes", "no"] = "auto"
    """auto: where there are pictures, not a table, 20 per view at least, and at most 2^28 pairs of them"""
    memory_gib: Positive = 8.0
    """of one node, for cells; where all take more, those are read that are compared at a time"""
    side: Count = 14
    """cells of a query's side"""
    bands: Count = 4
    """of a strip's height, pooled apart in each sector"""
    headings: Count = 12
    """into which queries are turned, evenly over the circle; of strips: the sectors that are compared"""
    widths: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.7, 0.82, 1.0, 1.17, 1.4, 1.75, 2.0)
    """of the ground that a query shows, over a reference's"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the products of cells; auto: bfloat16 where this machine's processor has instructions for it"""
    candidates: Count = 32
    """references per query that are aligned by all their cells, at most"""
