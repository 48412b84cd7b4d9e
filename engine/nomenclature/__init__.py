"""Names of structures: the standard ones of AAPM TG-263, and proposals for others."""
