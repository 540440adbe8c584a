"""Requests to servers. Only this package uses the network. Judges and sandboxes on servers use it."""
