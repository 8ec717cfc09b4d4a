"""Client for the ThousandEyes API."""
