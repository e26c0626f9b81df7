"""The whole command from JPEG files to Parquet against a plain DataLoader script with as many processes.

python experiments/benchmarks/pipeline.py [--quick] [--images 5000]

Both run as commands of their own on the same files with the same random resnet18 at 96 px, and are timed on a
handful of images first: that is the start-up, shown apart and taken off the ratio.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image
from side_by_side import Race, line

STARTUP_IMAGES = 8
SETTINGS = {
    "dataset.layout": "folders", "backbone.name": "resnet18", "backbone.pretrained": "false",
    "backbone.image_size": "96", "backbone.layers": '["final"]', "backbone.rings": "[]",
    "backbone.crop_fraction": "0", "pretransform.query.crops": "[1.0]",
    "pretransform.query.orientations": "1", "pretransform.reference.orientations": "1",
}  # fmt: skip

PEER = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, timm, torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

class Files(Dataset):
    def __init__(self, root, transform):
        self.files, self.transform = sorted(Path(root).rglob("*.jpg")), transform
    def __len__(self):
        return len(self.files)
    def __getitem__(self, row):
        return self.transform(Image.open(self.files[row]).convert("RGB"))

root, target, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = timm.create_model("resnet18", num_classes=0).eval()
data = timm.data.resolve_model_data_config(model)
files = Files(root, timm.data.create_transform(**(data | {"input_size": (3, 96, 96)})))
rows = []
with torch.inference_mode():
    for batch in DataLoader(files, batch_size=64, num_workers=workers):
        rows.append(torch.nn.functional.normalize(model.forward_features(batch).mean((2, 3)), dim=-1))
rows = torch.cat(rows).numpy().astype(np.float16)
column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
pq.write_table(pa.table({"image_id": [str(file) for file in files.files], "feature": column}), target)
"""


def write_images(root: Path, count: int, side: int = 512) -> Path:
    """Smooth random colours with some grain, half of them in each view's folder."""
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((side, side), 3)
        picture = np.asarray(coarse) // 2 + rng.integers(0, 32, (side, side, 1), dtype=np.uint8)
        folder = root / ("drone" if number % 2 else "satellite")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=90)
    return root


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def product(root: Path, output: Path) -> float:
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "cvgl_ray", "extract", *settings, "--set", f"dataset.root={root}"]
    return seconds([*command, "--output", str(output)])


def peer(root: Path, output: Path) -> float:
    return seconds([sys.executable, "-c", PEER, str(root), str(output), str(os.cpu_count() or 1)])


@click.command()
@click.option("--images", default=5_000, show_default=True)
@click.option("--repeats", default=1, show_default=True)
@click.option("--quick", is_flag=True, help="300 images")
def main(images: int, repeats: int, quick: bool) -> None:
    """Print the ratio of seconds after start-up, and both start-ups."""
    images = 300 if quick else images
    with tempfile.TemporaryDirectory() as folder:
        few, many = (write_images(Path(folder) / str(count), count) for count in (STARTUP_IMAGES, images))
        starts = [run(few, Path(folder) / f"start-{run.__name__}") for run in (product, peer)]
        whole: list[list[float]] = [[], []]
        for turn in range(repeats):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                run = (product, peer)[which]
                whole[which].append(run(many, Path(folder) / f"{turn}-{run.__name__}"))
    steady = Race(*([each - start for each in side] for side, start in zip(whole, starts, strict=True)))
    print(
        line(
            f"{images} JPEG files to Parquet, start-up taken off",
            steady,
            1.0,
            f"start-up {starts[0]:.1f} s against {starts[1]:.1f} s",
            f"with it {Race(*whole).ratio:.2f} x",
        )
    )


if __name__ == "__main__":
    main()
