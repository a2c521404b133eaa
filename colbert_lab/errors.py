"""What can go wrong for a user, in four kinds: the configuration, the data, an artifact, the training itself.

A message says what was given, what was expected, and what would mend it.
"""

from collections.abc import Sequence


class LabError(Exception):
    """Any error whose message alone is meant to be enough; the command line shows it without a traceback."""

    def __reduce__(self):
        # Not through __init__, as exceptions are pickled otherwise: a subclass's makes the message of what it is given.
        return _unpickled, (type(self), self.args, vars(self))


class ConfigError(LabError):
    """One or more mistakes in a configuration, told together."""

    def __init__(self, problems: str | Sequence[str], where: str = "the configuration"):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in {where}"
        super().__init__("\n".join([head, *("  " + problem.replace("\n", "\n  ") for problem in self.problems)]))


class DataError(LabError):
    """A collection, run or file of examples that cannot be used as it is; names the file, line or id."""


class ArtifactError(LabError):
    """A directory that is not the whole, unchanged artifact that was asked for."""


class TrainingError(LabError):
    """Training that cannot go on, a loss that is no number for example."""


def _unpickled(kind: type[LabError], arguments: tuple, state: dict) -> LabError:
    error = kind.__new__(kind)
    error.args = arguments
    vars(error).update(state)
    return error
