"""From a configuration to a journal of measured cells."""
