"""The routes of the Hub, by area."""
