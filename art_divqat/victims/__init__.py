"""Victims: classifiers under attack, by name; trained here, loaded from the store, or external."""
