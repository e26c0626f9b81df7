"""The rooms of the house: who may import whom. It is read from the imports, and nothing is imported."""

import ast
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "cvgl_ray"
# From the ground up: a room imports only rooms named before it, and itself.
ROOMS = (
    "errors",
    "config",
    "logs",
    "progress",
    "storage",
    "catalog",
    "maps",
    "synthetic",
    "features",
    "search",
    "em",
    "alignment",
    "bundle",
    "evaluation",
    "model",
    "tuning",
    "reports",
    "localization",
    "distributed",
    "stages",
    "map_stages",
    "cli",
)
LABELS = {"Labels", "load_labels", "Relevance"}
# Besides evaluation: where labels are read from disk, and the stages that hand them to evaluation.
READ_LABELS = {"catalog", "evaluation", "reports", "stages"}
FILES_THAT_READ_LABELS = {"distributed/data.py", "distributed/evaluate.py", "distributed/tune.py"}


@cache
def files() -> list[tuple[str, str, ast.Module]]:
    """Of each module: its path below the package, its room, what it says."""
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return [
        (name, name.split("/")[0].removesuffix(".py"), ast.parse(path.read_text()))
        for name, path in paths.items()
        if name not in ("__init__.py", "__main__.py")  # the top re-exports, and starts the command line
    ]


@cache
def imported(tree: ast.Module) -> list[str]:
    """Names of the modules that it imports, at its top or inside a function."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_every_room_stands_in_the_plan():
    assert {room for _, room, _ in files()} <= set(ROOMS)


def test_no_room_imports_a_higher_one():
    wrong = [
        f"{name} imports {module}"
        for name, room, tree in files()
        for module in imported(tree)
        if module.startswith("cvgl_ray.") and (other := module.split(".")[1]) in ROOMS
        if ROOMS.index(other) > ROOMS.index(room)
    ]
    assert not wrong


def test_ray_is_imported_in_one_room():
    wrong = [
        f"{name} imports {module}"
        for name, room, tree in files()
        for module in imported(tree)
        if module.split(".")[0] == "ray" and room != "distributed"
    ]
    assert not wrong


def test_labels_are_known_where_figures_are_made_and_nowhere_else():
    wrong = [
        name
        for name, room, tree in files()
        if room not in READ_LABELS and name not in FILES_THAT_READ_LABELS
        if any(module.split(".")[-1] in LABELS for module in imported(tree))
    ]
    assert not wrong


# Who takes the whole configuration below the room that runs commands: what a notebook calls first, what
# drives a map's job, and what records or shows the configuration as a whole.
TAKE_THE_WHOLE = {
    "bundle.py": {"bundle_of"},
    "features/extraction.py": {"extract"},
    "localization/run.py": {
        "localize_map",
        "localize",
        "frozen",
        "_checked",
        "_model",
        "_localized",
        "_write",
    },
    "model.py": {"fit"},
    "reports/tensorboard.py": {"configuration_table"},
    "storage/run_record.py": {"_claim", "_identity", "check_claim", "claim"},
}
ABOUT_THE_WHOLE = {"config", "tuning"}  # they read, compare and vary it


def takers(tree: ast.Module) -> set[str]:
    """Names of the functions with a parameter that is annotated as `Config`, alone or among others."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            told = " ".join(ast.unparse(each.annotation) for each in given if each.annotation)
            if re.search(r"\bConfig\b", told):
                found.add(node.name)
    return found


def test_functions_take_sections_and_the_whole_configuration_enters_where_commands_are_run():
    below = ROOMS[: ROOMS.index("distributed")]
    found = {
        name: takers(tree) for name, room, tree in files() if room in below and room not in ABOUT_THE_WHOLE
    }
    assert {name: functions for name, functions in found.items() if functions} == TAKE_THE_WHOLE
