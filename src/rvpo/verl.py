"""``python -m rvpo.verl``: train with verl on many rewards. See docs/engines.md."""

from rvpo.engines.verl.main import main

if __name__ == "__main__":
    main()
