"""``python -m rvpo`` is the command ``rvpo``."""

from rvpo.cli.app import main

if __name__ == "__main__":
    main()
