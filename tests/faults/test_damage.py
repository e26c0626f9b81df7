"""What a kill, a full or a read-only disk and a flipped bit do to files: noticed, and nothing lost."""

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cvgl_ray.bundle import Bundle, load_bundle, save_bundle
from cvgl_ray.config import Config
from cvgl_ray.em.build import build_adapter
from cvgl_ray.errors import InputError
from cvgl_ray.features.store import FeatureStore
from cvgl_ray.features.table import select
from cvgl_ray.storage import run_folder
from cvgl_ray.storage.checkpoints import keep_newest, last_state, save_checkpoint
from cvgl_ray.storage.files import write_json

PAIRS = [("drone/1.jpg", "satellite/1.jpg", 0.5)]

# Saves a bundle over another in a process that is killed at its n-th touch of the file system, for every n.
KILLED_AT_EVERY_TOUCH = """
import os, signal, sys
from pathlib import Path
from test_damage import PAIRS, bundle
from cvgl_ray.bundle import save_bundle

def touches(event):
    return event == "open" or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir")

number, done = 0, False
while not done:
    folder = Path(sys.argv[1], str(number), "bundle")
    save_bundle(folder, bundle(0.0), [])
    child = os.fork()
    if child == 0:
        left = [number]
        def kill(event, _):
            if touches(event):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        replacement = bundle(1.0)
        signal.alarm(30)
        sys.addaudithook(kill)
        save_bundle(folder, replacement, PAIRS)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    done = os.WIFEXITED(status)
    assert done and not os.WEXITSTATUS(status) or os.WTERMSIG(status) == signal.SIGKILL, status
    number += 1
"""


def bundle(value: float) -> Bundle:
    """A bundle whose adapter's numbers are all `value`."""
    adapter = build_adapter(Config().adapter, 4, seed=0)
    with torch.no_grad():
        for tensor in adapter.state_dict().values():
            tensor.fill_(value)
    banks = np.eye(4, dtype=np.float16), np.eye(4, dtype=np.float16)
    trained_on = np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.uint64)
    return Bundle(adapter, banks, Config(), {}, {}, trained_on)


def value_of(folder: Path) -> float:
    """The one number of a bundle's adapter; fails where its tensors hold several."""
    [value] = {float(x) for t in load_bundle(folder).adapter.state_dict().values() for x in t.unique()}
    return value


def flipped(content: bytes, rng: random.Random) -> bytes:
    """The content with one bit the other way round."""
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def filled_store(root: Path, rows: int = 50) -> FeatureStore:
    store = FeatureStore(root, "drone", {})
    store.open()
    features = np.random.default_rng(0).standard_normal((rows, 16))
    store.append([f"d{row}" for row in range(rows)], [f"{row}.jpg" for row in range(rows)], features)
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_is_whole_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_AT_EVERY_TOUCH, str(tmp_path)],
        cwd=Path(__file__).parent,
        check=True,
        timeout=120,
    )
    folders = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    found = [value_of(folder / "bundle") for folder in folders]
    assert len(found) > 15  # the writer was killed at as many points
    assert found == sorted(found)  # up to some point the earlier bundle, from then on the new one
    assert (found[0], found[-1]) == (0.0, 1.0)
    for folder in folders:
        save_bundle(folder / "bundle", bundle(2.0), PAIRS)  # the run was started again
        assert value_of(folder / "bundle") == 2.0
        assert names(folder) == ["bundle"]


def test_any_flipped_bit_in_a_feature_part_is_caught_and_nothing_is_overwritten(tmp_path: Path) -> None:
    store = filled_store(tmp_path)
    [part] = store.folder.glob("part-*.parquet")
    content, rng = part.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = flipped(content, rng)
        part.write_bytes(damaged)
        for read in (store.digests, lambda: select(store.table(["0.jpg"], ["d0"]))):
            with pytest.raises(InputError, match=r"part-.* is damaged: .*; remove it, and the next run"):
                read()
        assert part.read_bytes() == damaged
    part.write_bytes(content)
    assert len(select(store.table(["0.jpg"], ["d0"]))) == 1


def test_any_flipped_bit_in_an_adapter_is_caught(tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", bundle(1.0), PAIRS)
    path = tmp_path / "bundle/adapter.safetensors"
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(100):
        path.write_bytes(flipped(content, rng))
        with pytest.raises(InputError, match=r"adapter\.safetensors is damaged"):
            load_bundle(tmp_path / "bundle")


def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    rng = random.Random(0)

    def truncated(content: bytes) -> bytes:
        return content[: rng.randrange(len(content))]

    faults: list[Callable[[bytes], bytes]] = [truncated, lambda content: flipped(content, rng)] * 20
    for number, fault in enumerate(faults):
        root = tmp_path / str(number)
        checkpoints(root, 3)
        [newest] = (root / "checkpoint_2").iterdir()
        damaged = fault(newest.read_bytes())
        newest.write_bytes(damaged)
        (root / "checkpoint_manager_snapshot.json").write_text("")
        for _ in range(2):
            state = last_state(root)
            assert state is not None
            assert state["rounds_done"] == 1
            assert torch.equal(state["weights"], torch.full((8, 8), 1.0))
        assert (root / "damaged_checkpoint_2" / newest.name).read_bytes() == damaged
        assert "checkpoint_0" in names(root)
        keep_newest(root)
        assert names(root) == ["checkpoint_1", "damaged_checkpoint_2"]
    assert last_state(tmp_path / "none") is None


def checkpoints(root: Path, count: int) -> None:
    for step in range(count):
        folder = root / f"checkpoint_{step}"
        folder.mkdir(parents=True)
        save_checkpoint({"rounds_done": step, "weights": torch.full((8, 8), float(step))}, folder)


def test_a_checkpoint_that_cannot_be_read_just_now_costs_nothing(tmp_path: Path) -> None:
    checkpoints(tmp_path, 2)
    [newest] = (tmp_path / "checkpoint_1").iterdir()
    content = newest.read_bytes()
    newest.unlink()
    newest.mkdir()  # what it holds cannot be read, which root may everywhere else
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="Is a directory"):
        last_state(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    newest.rmdir()
    (tmp_path / "checkpoint_2").mkdir()  # its writer was killed before it wrote anything
    newest.write_bytes(content)
    state = last_state(tmp_path)
    assert state is not None
    assert state["rounds_done"] == 1


def test_a_damaged_checkpoint_is_set_aside_under_a_uri_too(tmp_path: Path) -> None:
    there = tmp_path / "store"
    checkpoints(there / "train", 2)
    [newest] = (there / "train/checkpoint_1").iterdir()
    newest.write_bytes(newest.read_bytes()[:-1])
    with run_folder.opened(f"file://{there}") as folder:
        folder.fetch("train")
        assert last_state(folder.path / "train")
        keep_newest(folder.path / "train")
        folder.prune("train")
    files = {path.parent.name for path in (there / "train").rglob("*") if path.is_file()}
    assert files == {"checkpoint_0", "damaged_checkpoint_1"}


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_0").mkdir()
    (tmp_path / "checkpoint_0/learner.pt").touch()
    with pytest.raises(InputError, match=r"is a checkpoint of an earlier version .* choose another --output"):
        last_state(tmp_path)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


def test_a_checkpoint_that_somebody_put_there_executes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "train/checkpoint_0"
    folder.mkdir(parents=True)
    sprung = tmp_path / "sprung"
    save_checkpoint({"rounds_done": Trap(sprung)}, folder)
    with pytest.raises(InputError, match="is no checkpoint that this version reads"):
        last_state(tmp_path / "train")
    assert not sprung.exists()


@pytest.fixture
def full_disk(small_disk: Path) -> Path:
    """A file system with nothing but a bundle and 40 feature rows on it, and 16 KiB left."""
    save_bundle(small_disk / "bundle", bundle(1.0), PAIRS)
    filled_store(small_disk / "features")
    (small_disk / "ballast").write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 2**14))
    return small_disk


def test_a_full_disk_leaves_what_was_there(full_disk: Path) -> None:
    store = FeatureStore(full_disk / "features", "drone", {})
    before = names(store.folder)
    attempts: list[Callable[[], object]] = [
        lambda: store.append([f"e{i}" for i in range(64)], ["x"] * 64, np.random.rand(64, 2048)),
        lambda: save_bundle(full_disk / "bundle", bundle(2.0), PAIRS * 9000),
        lambda: write_json(full_disk / "metrics.json", list(range(20_000))),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="No space left") as caught:
            attempt()
        assert caught.value.errno == errno.ENOSPC
    assert names(store.folder) == before
    assert len(store.digests()) == 50
    assert value_of(full_disk / "bundle") == 1.0
    assert not (full_disk / "metrics.json").exists()


def test_a_read_only_disk_is_refused_before_anything_starts(full_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    for output in (full_disk, full_disk / "run"):
        with (
            pytest.raises(InputError, match=r"cannot be written \(Read-only file system\); choose another"),
            run_folder.locked(output),
        ):
            pass
    assert value_of(full_disk / "bundle") == 1.0
