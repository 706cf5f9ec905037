"""The command ``rasa-extras``: what an operator asks of a running assistant's Redis."""
