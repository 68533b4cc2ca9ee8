"""Methods for speech."""
