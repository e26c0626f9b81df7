"""The one exception that means "the input is at fault": the command line prints it without a traceback."""


class InputError(ValueError):
    """Bad input from the user; the message is one sentence: what was found, what was expected, what to do."""
