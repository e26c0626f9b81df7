"""timm's pretrained weights: which there are, whether they are here, whether their hub can be reached."""

import difflib
from collections.abc import Sequence

import huggingface_hub

from cvgl_ray.errors import InputError

PATIENCE_S = 5.0  # for the hub's answer to one question
NAMES_SHOWN = 6


def check_name(name: str) -> None:
    """Raise InputError, with the names that are near, unless timm has such a model (and tag)."""
    import timm  # here: it takes seconds, which whoever makes no model need not wait

    if not timm.is_model(name):
        near = ", ".join(near_names(name, timm.list_models())) or "none"
        raise InputError(f"backbone.name {name!r} is not a timm model; near it: {near}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag
        raise InputError(f"timm cannot make backbone.name {name!r} ({error})") from error


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """A few known names that may be meant: those that begin so, hold it, or are spelt alike."""
    base = name.split(".")[0].lower().replace("-", "_")
    begin = [other for other in known if other.startswith(base)]
    hold = [other for other in known if base in other]
    alike = difflib.get_close_matches(base, known, NAMES_SHOWN)
    return (begin or hold or alike)[:NAMES_SHOWN]


def local_weights(name: str) -> str:
    """The file of a model's pretrained weights that an earlier run left on this machine; "" if there is none.

    From it a model can be made without a word to the hub, which would be asked whether it is up to date.
    """
    repository, revision, files = _on_hub(name)
    for file in files:
        path = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(path, str):
            return path
    return ""


def check_hub(name: str) -> None:
    """Raise InputError unless a model's pretrained weights are on this machine or their hub answers soon."""
    repository, revision, files = _on_hub(name)
    if not repository or local_weights(name):
        return
    url = huggingface_hub.hf_hub_url(repository, files[0], revision=revision)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=PATIENCE_S)
    except huggingface_hub.errors.EntryNotFoundError:
        return  # it answered: the weights have another of the names
    except Exception as error:  # whatever the client of the day raises
        raise unreachable(name, error) from error


def unreachable(name: str, error: BaseException) -> InputError:
    """What to tell a user whose weights did not come."""
    reason = " ".join(str(error).split())[:120]
    return InputError(
        f"the weights of {name} are not on this machine and did not come from timm's hub "
        f"({type(error).__name__}: {reason}); give backbone.checkpoint a local file, or set "
        "backbone.pretrained = false for random weights"
    )


def _on_hub(name: str) -> tuple[str, str | None, list[str]]:
    """Repository, revision and possible files of pretrained weights; "" for a source that is not the hub.

    Raises InputError for a model that nobody has published weights of.
    """
    import timm

    source = timm.get_pretrained_cfg(name)
    if source is None or not source.has_weights:
        raise InputError(
            f"nobody has published weights of {name} for timm; give backbone.checkpoint a local file, or set "
            "backbone.pretrained = false for random weights"
        )
    if not source.hf_hub_id or source.file or source.custom_load:
        return "", None, []
    repository, _, revision = source.hf_hub_id.partition("@")
    files = [source.hf_hub_filename] if source.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return repository, revision or None, files
