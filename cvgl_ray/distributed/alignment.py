"""Whether a data set's images are aligned, by which cells, and what poses say of the pre-transforms."""

import json
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.choice import Choice, choose
from cvgl_ray.bundle import Bundle
from cvgl_ray.catalog.table import Catalog
from cvgl_ray.config import Alignment, Config, Pretransform, Pretransforms
from cvgl_ray.distributed import session
from cvgl_ray.distributed.align import AlignedData, ClusterScore, settings_of
from cvgl_ray.distributed.cells import Maker, cells_as_learned, extract_cells
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.features.store import fingerprint
from cvgl_ray.storage.files import write_json

log = logging.getLogger(__name__)

FEWEST = 20  # images per view: of fewer, pairs that are each other's best say little
CHOICE = "choice.json"
MOST_PAIRS = 2**28  # whose scores, 1 GiB, are held at a time, several times over
SECONDS_PER_PAIR, SECONDS_PER_COARSE_PAIR = 0.0035, 0.0003  # of a CPU, all headings and widths, in bfloat16


def why_not_aligned(config: Config, queries: int, references: int) -> str:
    """Why so many training images are not aligned; "" where they are.

    Raises InputError where the configuration insists on it.
    """
    section, estep = config.alignment, config.estep
    if section.use == "no":
        return "alignment.use is no"
    reasons = {
        "features.table has no images": bool(config.features.table),
        f"estep.rows = {estep.rows} leaves images out of each round": estep.rows > 0,
        f"a view has fewer than {FEWEST} images": min(queries, references) < FEWEST,
        _too_many(queries, references): queries * references > MOST_PAIRS,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    if reason and section.use == "yes":
        raise InputError(f'alignment.use is "yes", and {reason}; change that, or set alignment.use = "auto"')
    return reason


def cells_root(config: Config, output: Path) -> Path:
    """Where cells are kept: beside the features' cache, or in a run's folder."""
    return Path(config.features.cache or output / "features").with_name("cells")


def align_data_set(
    config: Config, catalog: Catalog, output: Path, address: str = ""
) -> tuple[Config, AlignedData | None]:
    """The configuration with nothing "auto" in its pre-transforms, and the cells that images are aligned by.

    These are None where the training does not align. What the poses of a sample say is logged, and kept
    in `output`/choice.json. Raises InputError where alignment is insisted on in vain.
    """
    dataset = config.dataset
    views = dataset.query_view, dataset.reference_view
    trained_on = catalog.select(split="train")
    images = [trained_on.select(view=view).image_ids for view in views]
    reason = why_not_aligned(config, len(images[0]), len(images[1]))
    try:
        data = None if reason else _data(config, trained_on, output, address)
        if data is not None:
            usable = [_by_content(data, view, ids) for view, ids in zip(views, images, strict=True)]
            if reason := why_not_aligned(config, len(usable[0]), len(usable[1])):
                data = None
    except InputError as error:
        if config.alignment.use == "yes":
            raise
        reason, data = str(error), None
    if data is None:
        log.info("alignment: none, since %s", reason)
        return _with(config, config.pretransform.settled()), None
    if not config.strips:  # whose round is a product per sector, which no one waits for
        log.info(
            "alignment: about %.0f CPU minutes per round",
            _cpu_minutes(config.alignment, len(images[0]), len(images[1])),
        )
    auto = any("auto" in (view.crops, view.orientations) for view in _both(config.pretransform))
    if auto:
        chosen = _chosen(config.alignment, data, usable, output, address)
        return _with(config, config.pretransform.filled(pretransforms_of(chosen))), data
    return config, data


def _cpu_minutes(section: Alignment, queries: int, references: int) -> float:
    """Of a round, to an order of magnitude; measured with 12 headings and 7 widths (experiments/LOG.md)."""
    settings = settings_of(section)
    poses = section.headings * len(section.widths) / (12 * 7)
    coarse = references if queries * references <= settings.all_below else 0
    pairs = min(settings.candidates, references) * SECONDS_PER_PAIR + coarse * SECONDS_PER_COARSE_PAIR
    slower = 1 if settings.dtype == torch.bfloat16 else 2
    return queries * pairs * poses * slower / 60


def cells_for(
    bundle: Bundle, config: Config, catalog: Catalog, output: Path, address: str = ""
) -> AlignedData | None:
    """The cells of a catalog's images that are evaluated, as a bundle compares them.

    None where it has not learned to align, and where the pairs are too many, which is said.
    """
    section, dataset = config.alignment, config.dataset
    if bundle.alignment is None or section.use == "no":
        return None
    directed = directions(catalog, dataset.query_view, dataset.reference_view)
    tested = {name for one in directed for side in (one.queries, one.gallery) for name in side.image_ids}
    rows = catalog.rows.filter(np.array([name in tested for name in catalog.image_ids]))
    images = Catalog(rows)
    counts = [len(images.select(view=view)) for view in (dataset.query_view, dataset.reference_view)]
    if math.prod(counts) > MOST_PAIRS:
        log.warning("warning: the images are not evaluated aligned, since %s", _too_many(*counts))
        return None
    return _data(config, images, output, address, bundle)


def _too_many(queries: int, references: int) -> str:
    return (
        f"{queries} queries and {references} references are {queries * references} pairs, and the scores of "
        f"at most {MOST_PAIRS} are held at a time"
    )


def _data(
    config: Config, catalog: Catalog, output: Path, address: str, bundle: Bundle | None = None
) -> AlignedData:
    """Of an untrained alignment, or of one that a bundle has learned."""
    known, root = Path(config.features.cache or output / "features"), cells_root(config, output)
    views = config.dataset.query_view, config.dataset.reference_view
    maker = partial(Maker.of, config.backbone, config.cells.layer)
    if bundle is not None and bundle.alignment is not None:
        stores = cells_as_learned(catalog, bundle, config, root, address, maker=maker, known=known)
        return AlignedData(stores, views, bundle.alignment.directions)
    stores, directions = extract_cells(catalog, config, root, address, maker=maker(), known=known)
    return AlignedData(stores, views, directions)


def _by_content(data: AlignedData, view: str, image_ids: Sequence[str]) -> list[str]:
    """The images that have cells, in an order that does not depend on their names."""
    digests, usable = data.stores.digests[view], data.stores.has(view)
    return sorted((name for name in image_ids if name in usable), key=lambda name: digests[name])


def pretransforms_of(choice: Choice) -> Pretransforms:
    """What poses chose, as a configuration says it."""
    query, reference = (
        Pretransform.model_validate({"crops": crops, "orientations": len(headings), "heading": headings[0]})
        for crops, headings in (
            (choice.query_crops, choice.query_headings),
            (choice.reference_crops, choice.reference_headings),
        )
    )
    return Pretransforms(query=query, reference=reference)


def _chosen(
    section: Alignment, data: AlignedData, images: Sequence[Sequence[str]], output: Path, address: str
) -> Choice:
    """As an earlier run into the folder chose of the same cells, or as the poses of a sample say."""
    stores, path = data.stores, output / CHOICE
    digests = [
        [stores.digests[view][name] for name in ids] for view, ids in zip(data.views, images, strict=True)
    ]
    key = fingerprint({"cells": [stores.stores[view].recipe for view in data.views], "images": digests})
    if path.exists() and (found := json.loads(path.read_text()))["key"] == key:
        kept: dict[str, Any] = found["choice"]
        choice = Choice(**{name: _tuple(value) for name, value in kept.items()})
    else:
        session.connect(address)
        settings = settings_of(section)
        aligner = Aligner(*data.sources(images[0], images[1], settings), settings, ClusterScore(settings))
        aligner.find_poses()
        choice = choose(aligner.prior, np.array(section.widths))
        write_json(path, {"key": key, "choice": choice.__dict__, "forwards": choice.forwards})
    log.info("alignment: %s; %d and %d forwards per query and reference", choice.evidence, *choice.forwards)
    return choice


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _both(views: Pretransforms) -> tuple[Any, Any]:
    return views.query, views.reference


def _with(config: Config, views: Pretransforms) -> Config:
    return config.model_copy(update={"pretransform": views})
