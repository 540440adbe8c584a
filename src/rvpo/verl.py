"""``python -m rvpo.verl``: train with verl on many rewards. See docs/engines.md."""

import sys

if __name__ == "__main__":
    try:
        from rvpo.engines.verl.main import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("rvpo"):
            raise
        sys.exit(
            f"error: python -m rvpo.verl needs the package {error.name}: pip install -c constraints-verl.txt "
            "-e '.[verl]' in the clone, in an environment without TRL"
        )
    main()
