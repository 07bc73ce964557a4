"""The program of the task `checksum`: it finds its task in a file, and prints the result."""

import hashlib
import json
import os
from pathlib import Path

task = json.loads(Path(os.environ["ASYNCTASKD_TASK_FILE"]).read_text("utf8"))
print(json.dumps({"sha256": hashlib.sha256(task["payload"]["text"].encode()).hexdigest()}))
