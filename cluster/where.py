"""Where a run computes, as people say it. Light, because every command looks at it before anything starts."""

from pathlib import Path


def is_site_file(where: str) -> bool:
    """Return whether a cluster is named by the file of a SLURM site."""
    return where.endswith(".toml")


def settled(where: str) -> str:
    """Return the same cluster as it is named from every working folder; a site's file is read, too.

    Raises
    ------
    StudyError
        If the file of a SLURM site has mistakes: told now, and not after hours.
    """
    if not is_site_file(where):
        return where
    from cluster.slurm.site import read_site

    read_site(Path(where))
    return str(Path(where).resolve())
