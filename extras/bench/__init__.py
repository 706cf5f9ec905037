"""``python -m extras.bench``: how long a conversation's turn takes with Rasa's own Redis store, and with ours."""
