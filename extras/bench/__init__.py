"""``python -m extras.bench``: Rasa's own Redis store beside ours, and Redis clients beside each other."""
