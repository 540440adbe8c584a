"""The command line: one file per command. The only room that imports typer; commands import what they need late."""
