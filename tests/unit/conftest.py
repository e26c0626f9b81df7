"""One thread per process: on matrices this small more of them only wait, on a busy machine for minutes."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch, faiss and NumPy are first imported
gc.disable()  # while modules are imported: they are no garbage, and each search through them takes long


def pytest_collection_finish() -> None:
    gc.enable()
