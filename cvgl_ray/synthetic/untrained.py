"""How to learn on a rendered world without a download: settings of a backbone with random weights."""

from pathlib import Path

from cvgl_ray.storage.files import write_text

# A pretrained backbone would need a download. Among the untrained timm networks tried on other worlds, the
# early stages of a VGG keep most of what an image shows (experiments/LOG.md); rings need trained features.
# Each is an override and a line of TOML.
UNTRAINED = (
    'backbone.name="vgg11"',
    "backbone.pretrained=false",
    "backbone.image_size=64",
    "backbone.layers=[0, 1, 2, 3]",
    'backbone.pooling="max"',
    "backbone.rings=[]",
    "pretransform.query.crops=[1.0]",
    "pretransform.query.orientations=4",
    "pretransform.reference.orientations=4",
)


def write_settings(world: Path) -> Path:
    """Write the settings as a configuration file beside a world's images; returns its path."""
    path = world / "untrained.toml"
    lines = ("# Learns on this world without a download; a trained backbone reaches far more.", *UNTRAINED)
    write_text(path, "\n".join(lines) + "\n")
    return path
