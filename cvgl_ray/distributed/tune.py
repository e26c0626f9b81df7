"""A sweep: trials that share their features, a choice by the label-free score alone, tables of all of it."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvgl_ray.bundle import save_bundle
from cvgl_ray.distributed import session
from cvgl_ray.distributed.data import load_features, load_labels, training_tables
from cvgl_ray.distributed.evaluate import evaluate_models, read_metrics, write_metrics
from cvgl_ray.distributed.resources import training_need
from cvgl_ray.distributed.rows import TrainingData, share
from cvgl_ray.distributed.trained import Trained, collect
from cvgl_ray.distributed.trials import run_trials
from cvgl_ray.em.batches import check_batches
from cvgl_ray.em.judge import FEWEST
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metrics import Metrics
from cvgl_ray.reports import sweep as sweep_report
from cvgl_ray.reports.hparams import write_hparams
from cvgl_ray.reports.sweep import TrialRow
from cvgl_ray.storage import run_folder, run_record
from cvgl_ray.storage.checkpoints import last_state
from cvgl_ray.storage.files import write_atomically, write_text
from cvgl_ray.tuning.candidates import Candidate, candidates, feature_key, swept_values
from cvgl_ray.tuning.choice import choose
from cvgl_ray.tuning.config import Sweep
from cvgl_ray.tuning.journal import SCORE, Record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """The features that some candidates share: rows in the object store, and what they depend on."""

    data: TrainingData
    recipes: dict[str, Any]


def sweep_stage(sweep: Sweep, output: Path, address: str = "") -> dict[str, Any]:
    """Try all candidates; leave the best one's bundle and metrics, and tables and figures of all.

    Labels are read when the choice is made and written. A sweep whose driver died goes on where it was; a
    complete one returns at once. Returns metrics.json's tree. Raises InputError for an impossible candidate
    before anything starts, and where no trial ends well. Vectors alone are tried and judged.
    """
    found = {candidate.number: candidate for candidate in candidates(sweep)}
    _check_vectors_alone({candidate.config.alignment.use for candidate in found.values()})
    with run_folder.locked(output):
        run_record.claim(
            output, "tune", sweep.base, {"tune": sweep.tune.model_dump(mode="json", exclude={"concurrency"})}
        )
        complete = output / ".complete"
        if complete.exists():
            return read_metrics(output)
        session.check_room(address, [training_need(sweep.base.run)])
        several = sweep.base.run.workers > 1
        session.connect(address, dashboard=several)  # Ray Train asks it, where a trial's process is killed
        features = _shared_features(found, output, address)
        data = {n: features[feature_key(candidate.config)].data for n, candidate in found.items()}
        records = run_trials(sweep, found, data, output)
        best = found[choose(records)]
        trained = _trained(best, features, output)
        save_bundle(output / "bundle", trained.bundle, trained.pairs)
        rows = _rows(found, records, best)
        _write_trials(output, rows)
        report = write_metrics(
            best.config, load_features(best.config, output, address), trained.bundle, output
        )
        if report["adapted"]:
            figures = _figures_by_labels(found, records, features, output, address)
            write_text(output / "labels_table.md", sweep_report.labels_markdown(rows, figures, SCORE) + "\n")
        complete.touch()
        for folder in ("trials", "tune"):  # checkpoints, which only a sweep under way needs
            shutil.rmtree(output / folder, ignore_errors=True)
        return report


def _check_vectors_alone(uses: set[str]) -> None:
    """uses: the candidates' alignment.use."""
    if "yes" in uses:
        raise InputError(
            'alignment.use is "yes", and a sweep tries vectors alone; set alignment.use = "auto", and train '
            "by the chosen configuration with it"
        )
    if "auto" in uses:
        log.info(
            "a sweep tries vectors alone, by the recommended pre-transforms where these are auto; a training "
            "lays images on each other too, and finds pre-transforms of its own"
        )


def _shared_features(found: Mapping[int, Candidate], output: Path, address: str) -> dict[str, Features]:
    """By `feature_key`, each distinct set of features, extracted where need be, once in the object store."""
    shared: dict[str, Features] = {}
    for candidate in found.values():
        key, config = feature_key(candidate.config), candidate.config
        if key not in shared:
            data = load_features(config, output, address)
            shared[key] = Features(share(*training_tables(data, config.dataset)), data.extraction.recipes)
        rows = shared[key].data
        check_batches(len(rows.query_ids), len(rows.reference_ids), config.estep)
        fewest = min(len(rows.query_ids), len(rows.reference_ids))
        if fewest < FEWEST:
            raise InputError(
                f"a view has {fewest} usable images; a sweep chooses by the label-free score, which says "
                f"nothing of fewer than {FEWEST} of each view"
            )
    return shared


def _trained(candidate: Candidate, features: Mapping[str, Features], output: Path) -> Trained:
    """A complete trial's result, from its last checkpoint."""
    state = last_state(output / "trials" / candidate.name)
    assert state is not None
    shared = features[feature_key(candidate.config)]
    return collect(state, shared.data, candidate.config, shared.recipes)


def _rows(found: Mapping[int, Candidate], records: Mapping[int, Record], best: Candidate) -> list[TrialRow]:
    values = swept_values(list(found.values()))
    return [
        TrialRow(
            candidate.name,
            row,
            score=records[candidate.number].score,
            rounds=records[candidate.number].rounds,
            ended=str(records[candidate.number].ended),
            chosen=candidate is best,
        )
        for candidate, row in zip(found.values(), values, strict=True)
    ]


def _write_trials(output: Path, rows: list[TrialRow]) -> None:
    """The trials as tables, a figure, and TensorBoard's HParams."""
    write_text(output / "trials.csv", sweep_report.trials_csv(rows, SCORE))
    write_text(output / "trials.md", sweep_report.trials_markdown(rows, SCORE) + "\n")
    figure = sweep_report.score_figure(rows, SCORE)
    write_atomically(output / "trials.png", lambda path: figure.savefig(path, format="png", dpi=120))
    write_hparams(str(output / "tensorboard"), rows, SCORE)


def _figures_by_labels(
    found: Mapping[int, Candidate],
    records: Mapping[int, Record],
    features: Mapping[str, Features],
    output: Path,
    address: str,
) -> dict[str, dict[str, Metrics]]:
    """What the labels say of complete trials, by trial and direction; a set of features is read once."""
    complete = [found[number] for number, record in records.items() if record.ended == "complete"]
    figures: dict[str, dict[str, Metrics]] = {}
    for key in features:
        models: dict[str, Retriever | None] = {
            candidate.name: _trained(candidate, features, output).bundle.retriever(candidate.config.retrieval)
            for candidate in complete
            if feature_key(candidate.config) == key
        }
        if models:
            config = next(c.config for c in complete if feature_key(c.config) == key)
            data = load_features(config, output, address)
            labels = load_labels(config.dataset, config.features.table, data.catalog)
            assert labels is not None  # the choice has just been evaluated on them
            figures |= evaluate_models(data.catalog, labels, data.extraction.tables, config.dataset, models)
    return figures
