"""The one exception that means "the input is at fault", and what lies below an exception of Ray's."""


class InputError(ValueError):
    """Bad input from the user; the message is one sentence: what was found, what was expected, what to do."""


def root_cause(error: BaseException) -> BaseException:
    """What a task, an actor or a training worker raised, below the exceptions that Ray wraps around it.

    An exception that wraps nothing is its own cause. Ray's classes are known by their attributes, so that
    who asks need not import ray.
    """
    failures = getattr(error, "worker_failures", None)  # ray.train.WorkerGroupError's, by rank
    inner = next(iter(failures.values())) if failures else None
    for name in ("controller_failure", "cause"):  # ray.train.ControllerError's, ray.exceptions.RayTaskError's
        inner = inner or getattr(error, name, None)
    return error if inner is None else root_cause(inner)
