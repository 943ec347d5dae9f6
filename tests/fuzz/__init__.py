"""Random inputs for everything that reads what others wrote: `python -m tests.fuzz`. See `runner` for the rules."""
