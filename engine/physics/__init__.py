"""Constants, materials and tables, each number with its source."""
