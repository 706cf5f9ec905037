"""Redis persistence for Rasa assistants: ``extras.trackerstore.ExtraRedisTrackerStore``."""
