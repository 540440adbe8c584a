"""Text for people: aligned tables, and progress bars on a terminal."""
