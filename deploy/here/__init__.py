"""The stack of ``compose.yml`` on this machine, without containers: how it is laid out, started, and looked at."""
