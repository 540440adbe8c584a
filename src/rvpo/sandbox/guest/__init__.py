"""What runs inside a sandbox. Nothing here is imported outside; nothing of rvpo is there inside."""
