"""Text output: aligned tables, and progress bars on a terminal."""
