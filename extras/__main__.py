"""``python -m extras``: the command ``rasa-extras``."""

import sys

from extras.cli.main import main

sys.exit(main())
