"""Workers as jobs of a SLURM cluster: the site's file, job scripts, the supervisor, the keeper inside of each job."""
