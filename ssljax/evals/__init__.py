"""What a frozen encoder is worth, from features and labels alone."""
