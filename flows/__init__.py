"""Everything that a person or a clock starts: stages, Prefect flows, command line, reports."""
