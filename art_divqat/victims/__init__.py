"""What is attacked: victims by name, trained here, taken from the store, or somebody else's."""
