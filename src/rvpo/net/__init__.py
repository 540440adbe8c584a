"""Requests to servers: the only room with a network. Judges and sandboxes on a server ask through it."""
