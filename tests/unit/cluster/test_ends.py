"""Records of how workers ended."""

import json
from dataclasses import asdict

from cluster.ends import WorkerEnd


def test_an_end_survives_being_written_as_json() -> None:
    end = WorkerEnd("tls://10.0.0.1:4000", "memory", "killed by SIGKILL", 3 << 30, 2 << 30)
    assert WorkerEnd(**json.loads(json.dumps(asdict(end)))) == end
