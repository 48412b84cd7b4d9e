"""Data types that all stages share: frozen dataclasses of numbers and arrays."""
