"""A raster's pixels: odd bands and depths, what is no ground, and what cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasters import write

from cvgl_ray.errors import InputError
from cvgl_ray.maps.files import close_all
from cvgl_ray.maps.frame import LocalFrame, Window
from cvgl_ray.maps.geomap import open_map

UTM = Affine(0.5, 0, 396_000, 0, -0.5, 5_820_000)
# The frame that a map here gets: its pictures are the file's pixels.
PLAIN, HALF = LocalFrame(52.5, 13.4).crs, Affine(0.5, 0, 0, 0, -0.5, 0)


def test_bands_and_depths_become_rgb(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 120)[None, :].repeat(90, axis=0)
    rgb = np.stack([ramp, 1 - ramp, 0 * ramp + 0.5])
    eight = (rgb * 200 + 20).astype(np.uint8)
    infrared = np.full((1, 90, 120), 255, np.uint8)
    assert _seen(write(tmp_path / "rgb.tif", eight, PLAIN, HALF)) == pytest.approx(eight, abs=1)
    grey = _seen(write(tmp_path / "grey.tif", eight[:1], PLAIN, HALF))
    assert grey == pytest.approx(eight[[0, 0, 0]], abs=1)
    four = write(tmp_path / "rgbn.tif", np.concatenate([eight, infrared]), PLAIN, HALF)
    with rasterio.open(four, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
    assert _seen(four) == pytest.approx(eight, abs=1)
    backwards = write(tmp_path / "bgrn.tif", np.concatenate([eight[::-1], infrared]), PLAIN, HALF)
    with rasterio.open(backwards, "r+") as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    assert _seen(backwards) == pytest.approx(eight, abs=1)
    with rasterio.open(
        tmp_path / "colours.tif",
        "w",
        driver="GTiff",
        width=120,
        height=90,
        count=1,
        dtype="uint8",
        crs=PLAIN,
        transform=HALF,
        photometric="palette",
    ) as file:
        file.write((np.indices((90, 120))[1] // 40).astype(np.uint8), 1)
        file.write_colormap(1, {0: (250, 0, 0, 255), 1: (0, 240, 0, 255), 2: (0, 0, 230, 255)})
    colours = _seen(tmp_path / "colours.tif")
    assert colours[:, 45, 20].tolist() == [250, 0, 0]
    assert colours[:, 45, 100].tolist() == [0, 0, 230]


def test_sixteen_bits_are_stretched_alike_in_all_windows(tmp_path: Path) -> None:
    values = np.stack([np.linspace(3000, 9000, 400)[None, :].repeat(300, axis=0)] * 3).astype(np.uint16)
    values[:, :5, :5] = 65_535  # glare must not darken the rest
    geomap = open_map(str(write(tmp_path / "map.tif", values, PLAIN, HALF)))
    whole = geomap.read(geomap.bounds, 0.5).rgb.astype(int)
    assert whole[150, 5].max() < 10
    assert whole[150, -5].min() > 245
    bounds = geomap.bounds
    half = geomap.read(Window(bounds.west, bounds.south, bounds.centre[0], bounds.north), 0.5).rgb
    assert np.abs(half[:, :-2] - whole[:, : half.shape[1] - 2]).max() <= 2
    floats = open_map(str(write(tmp_path / "float.tif", values / np.float32(10_000), PLAIN, HALF)))
    assert np.abs(floats.read(geomap.bounds, 0.5).rgb.astype(int) - whole).max() <= 2


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask", "black", "nan", "partial nodata"])
def test_what_is_no_ground_is_masked(tmp_path: Path, how: str) -> None:
    pixels = np.full((3, 180, 240), 130, np.uint8)
    pixels[:, :, :100] = 0
    options: dict[str, object] = {}
    if how == "nodata":
        options = {"nodata": 0}
    elif how == "partial nodata":
        pixels[0, 60, 200] = 0  # one band's value alone is no hole
        options = {"nodata": 0}
    elif how == "alpha":
        pixels = np.concatenate([pixels, 255 * (pixels[:1] > 0).astype(np.uint8)])
        options = {"photometric": "rgb", "alpha": "yes"}
    elif how == "nan":
        pixels = np.where(pixels == 0, np.nan, pixels).astype(np.float32)
    path = write(tmp_path / "map.tif", pixels, PLAIN, HALF, **options)
    if how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(pixels[0] > 0)
    geomap = open_map(str(path))
    for scale in (0.5, 2.0):
        inner = geomap.read(geomap.bounds.grown(-4), scale)
        edge = round((100 * 0.5 - 4) / scale)
        assert not inner.valid[:, : edge - 2].any()
        assert inner.valid[:, edge + 2 :].all()
        if how != "nan":
            assert (inner.rgb[:, edge + 2 :].astype(int).min(axis=2) > 120).mean() > 0.99


def test_a_corrupt_part_is_named_and_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(20, 255, (3, 512, 512), dtype=np.uint8)
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    path = write(tmp_path / "map.tif", noise, "EPSG:32633", UTM, **options)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 1500] = bytes(1500)
    path.write_bytes(bytes(content))
    geomap = open_map(str(path))
    pixels = geomap.read(geomap.bounds.grown(-2), 1.0)
    assert len(pixels.damaged) == 1
    assert pixels.damaged[0].startswith("map.tif (")
    assert 0.85 < pixels.valid.mean() < 15.1 / 16
    whole = geomap.read(Window(*geomap.bounds[:2], geomap.bounds.west + 30, geomap.bounds.south + 30), 1.0)
    assert whole.damaged == ()


def test_sixteen_bits_with_a_corrupt_part_and_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(2000, 9000, (3, 512, 512), dtype=np.uint16)
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    path = write(tmp_path / "map.tif", noise, "EPSG:32633", UTM, **options)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(bytes(content))
    geomap = open_map(str(path))  # its stretch is measured on what can be read
    window = geomap.bounds.grown(-2)
    assert 0.55 < geomap.read(window, 1.0).valid.mean() < 0.78  # one of four tiles, and what lies near it
    path.unlink()
    close_all()
    with pytest.raises(InputError, match=r"cannot be opened|there is no map"):
        geomap.read(window, 1.0)


def _seen(path: Path) -> np.ndarray:
    """[3, 90, 120] uint8: the map's picture at its file's px, for the file's CRS is the map's frame."""
    geomap = open_map(str(path))
    assert (geomap.frame.latitude, geomap.frame.longitude) == (52.5, 13.4)
    return geomap.read(Window(0, -45, 60, 0), 0.5).rgb.transpose(2, 0, 1)
