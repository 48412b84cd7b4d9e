"""The report of a plan: figures, tables, one self-contained HTML page."""
