"""``python -m rvpo.verl``: train with verl on many rewards. See docs/engines.md."""

import sys

if __name__ == "__main__":
    try:
        from rvpo.engines.verl.main import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("rvpo"):
            raise
        from rvpo.extras import install_command

        sys.exit(
            f"error: python -m rvpo.verl needs the package {error.name}: {install_command('verl')}, "
            "in an environment without TRL"
        )
    main()
