"""Methods for clips of video."""
