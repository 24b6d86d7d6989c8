"""Conformance checks that third parties run on their own defences, attacks and victims."""
