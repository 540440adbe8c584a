"""``python -m rvpo`` is the command ``rvpo``."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C during its imports ends it as well, without a traceback."""
    try:
        from rvpo.cli.app import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
