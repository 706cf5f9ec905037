"""The version of these files, which pyproject.toml takes from here, and which the native module is compiled with."""

VERSION = "0.1.0"
