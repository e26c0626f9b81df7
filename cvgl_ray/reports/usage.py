"""What a training worker takes of its machine, round by round."""

import resource
import sys
import time

import torch


class Usage:
    """Measures from one reading to the next, the first from when it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Scalars by TensorBoard's names; memory is the process's peak so far."""
        wall, cpu = time.perf_counter(), time.process_time()
        scalars = {
            "time/round_s": wall - self.wall,
            "system/cores": (cpu - self.cpu) / (wall - self.wall),
            "system/peak_rss_mb": _peak_rss_mb(),
        }
        if torch.cuda.is_available():
            scalars["system/peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        self.wall, self.cpu = wall, cpu
        return scalars


def _peak_rss_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
