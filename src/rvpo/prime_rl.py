"""``python -m rvpo.prime_rl``: prime-rl's ``orchestrator`` with our methods. See docs/engines/prime_rl.md."""

import importlib
import sys

if __name__ == "__main__":
    try:
        from rvpo.engines.prime_rl import install
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("rvpo"):
            raise
        sys.exit(f"error: python -m rvpo.prime_rl needs the package {error.name}: run it in prime-rl's environment")
    install()
    importlib.import_module("prime_rl.entrypoints.orchestrator").main()
