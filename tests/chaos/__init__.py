"""Runs on SLURM while jobs and processes are cancelled, killed, stopped and sent back into the queue at random."""
