"""What ends the benchmark before it has measured anything, with a message for whoever started it."""


class Missing(Exception):
    """What the benchmark needs is not there; the message says how to get it."""
