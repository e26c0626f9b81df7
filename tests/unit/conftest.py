"""One thread a process: on matrices this small more of them only wait, on a busy machine for minutes."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch, faiss and NumPy are first imported
