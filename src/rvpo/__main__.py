"""``python -m rvpo`` is the command ``rvpo``."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C during imports ends it without a traceback, too."""
    try:
        from rvpo.cli.app import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
