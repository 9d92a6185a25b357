"""Programs run one at a time, with what the kernel says of them: time from outside and memory."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path


class Failed(Exception):
    """What was run did not end well; the message has its last lines."""


class Ended:
    """A process that has ended: its output, its seconds, its most memory in MB."""

    def __init__(self, command, output, seconds, memory_mb):
        self.command, self.output = command, output
        self.seconds, self.memory_mb = seconds, memory_mb

    def json(self):
        """The JSON object that the output is or, behind what libraries say, ends with."""
        begin = self.output.find("{")
        if begin < 0:
            raise Failed(f"{self.command}\nprinted no JSON:\n{self.output}")
        return json.loads(self.output[begin:])


def run(command, environment=None):
    """Runs a command to its end. Memory is VmHWM, the most that was resident, as wait4 returns it."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **(environment or {})}
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        output = out.read().decode(errors="replace")
        if process.returncode != 0:
            last = "\n".join((output + err.read().decode(errors="replace")).strip().splitlines()[-15:])
            raise Failed(f"{' '.join(command)}\nended with {process.returncode}:\n{last}")
    return Ended(" ".join(command), output, seconds, usage.ru_maxrss / 1e3 * 1.024)


def environment_of_python(folder, requirements):
    """The interpreter of a virtual environment, which is made with its packages where it is absent."""
    python = Path(folder) / "bin" / "python"
    if not python.exists():
        print(f"making {folder}: some gigabytes are downloaded", flush=True)
        subprocess.run(["python3", "-m", "venv", str(folder)], check=True)
        try:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
        except BaseException:
            python.unlink()  # so that the next run does not take it for complete
            raise
    return python
