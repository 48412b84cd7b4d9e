"""What runs on workers: importable by name, small arguments in, small records out, results into the store."""
