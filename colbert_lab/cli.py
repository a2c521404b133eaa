"""colbert-lab VERB ...: the same verbs as experiments/VERB.py, once the package is installed."""

import sys

from colbert_lab import __version__


def main() -> None:
    """Entry point of the `colbert-lab` command."""
    from colbert_lab.stages.launch import VERBS, launch

    arguments = sys.argv[1:]
    if arguments and arguments[0] in VERBS:
        launch(arguments[0], arguments[1:])
        return
    if arguments[:1] == ["--version"]:
        print(__version__)
        return
    lines = [f"  {verb:<10} {what}" for verb, what in VERBS.items()]
    usage = "\n".join(["colbert-lab VERB [group=choice] [key=value] [-m] [--help]", "", *lines])
    if arguments and arguments[0] not in ("-h", "--help"):
        sys.exit(f"there is no verb {arguments[0]!r}\n\n{usage}")
    print(usage)
