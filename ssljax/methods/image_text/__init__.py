"""Methods that learn from images and texts that say what they show."""
