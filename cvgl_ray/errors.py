"""The exceptions that end a run with one sentence, and what lies below an exception of Ray's."""

from collections.abc import Iterator


class InputError(ValueError):
    """Bad input from the user; the message is one sentence: what was found, what was expected, what to do."""


class GaveUpError(RuntimeError):
    """Something failed several times; the message is one sentence: what, how often, why, what to do."""


def root_cause(error: BaseException) -> BaseException:
    """What a task, an actor or a training worker raised, below the exceptions that Ray wraps around it.

    An exception that wraps nothing is its own cause, whatever it was raised from.
    """
    inner = _wrapped(error)
    return root_cause(inner[0]) if inner else error


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it wraps or was raised from, outermost first; worker after worker."""
    yield error
    for inner in _wrapped(error) or filter(None, [error.__cause__]):
        yield from chain(inner)


def _wrapped(error: BaseException) -> list[BaseException]:
    """What an exception of Ray's holds; its classes are known by attributes, so that nobody imports ray."""
    failures = getattr(error, "worker_failures", None)  # ray.train.WorkerGroupError's, by rank
    if failures:
        return list(failures.values())
    names = ("controller_failure", "cause")  # ray.train.ControllerError's, ray.exceptions.RayTaskError's
    return [inner for inner in (getattr(error, name, None) for name in names) if inner is not None][:1]
