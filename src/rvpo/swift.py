"""Call ``rvpo.swift.use(method="lift")`` in a file for ms-swift's ``--external_plugins``: docs/engines/ms-swift.md."""

from rvpo.engines.swift.plugin import use

__all__ = ["use"]
