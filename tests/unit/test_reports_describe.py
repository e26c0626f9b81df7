"""`cvgl-ray config`: what is printed comes from the models, and the file to start from is one."""

import re
import tomllib

import pytest

from cvgl_ray.config import Config
from cvgl_ray.errors import InputError
from cvgl_ray.reports.describe import as_table, as_toml


def keys(tree, prefix=""):
    for key, value in tree.items():
        yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]


def test_every_key_has_a_line_with_its_default_range_and_meaning():
    text = as_table()
    for key in keys(Config().model_dump()):
        section, _, name = key.rpartition(".")
        block = text[text.index(f"[{section}]") :].split("\n\n")[0]
        assert re.search(rf"^  {name} +\S+ +\S+", block, re.MULTILINE), key
    assert re.search(r"rounds +3 +E-steps, each with its M-step \(at least 1\)", text)
    assert re.search(r'optimizer +"adamw" .*\(one of "adamw", "adam"\)', text)
    assert "[tune]" in text
    assert max(map(len, text.splitlines())) <= 130


def test_the_file_to_start_from_holds_the_defaults_whether_commented_or_not():
    tree = tomllib.loads(as_toml())
    assert Config.model_validate(tree) == Config()
    uncommented = re.sub(r"^#(\w+ =)", r"\1", as_toml(Config.model_fields), flags=re.MULTILINE)
    tree = tomllib.loads(uncommented)
    assert set(keys(tree)) == set(keys(Config().model_dump()))
    assert Config.model_validate(tree) == Config()


def test_sections_are_chosen_by_name():
    assert as_table(["pretransform"]).count("[pretransform.") == 2
    assert "[backbone]" not in as_table(["pretransform"])
    with pytest.raises(
        InputError, match=r"no section 'mstp' \(did you mean 'mstep'\?\); the sections are: dataset,"
    ):
        as_table(["mstp"])
