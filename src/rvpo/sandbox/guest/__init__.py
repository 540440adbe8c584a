"""The code that runs inside a sandbox. It is never imported outside, and cannot import rvpo inside."""
