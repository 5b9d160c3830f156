"""Kills and stalls of everything that delivers events, under load: `python -m tests.campaign --help`."""
