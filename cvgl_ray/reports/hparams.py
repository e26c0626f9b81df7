"""A sweep's trials in HParams; apart from `tensorboard`, where matplotlib would slow down all workers."""

import json
from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter

from cvgl_ray.reports.sweep import TrialRow


def write_hparams(folder: str, rows: Sequence[TrialRow], score: str) -> None:
    """Add each trial's swept values and score to its logs, `folder`/<name>, for TensorBoard's HParams."""
    with SummaryWriter(folder) as writer:
        for row in rows:
            if row.score is not None:
                values = {
                    key: value if isinstance(value, int | float | str) else json.dumps(value)
                    for key, value in row.values.items()
                }
                writer.add_hparams(values, {score: row.score}, run_name=row.name, global_step=row.rounds)
