"""How an example becomes what a method sees, on the device."""
