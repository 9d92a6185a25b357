"""A program that is stopped behind every step and goes on when it is asked to."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from comparison.processes import Failed


class Paced:
    """Runs a command that appends a line to `log` after each step of its work, from one line to the next. While it is
    stopped, others have the machine."""

    def __init__(self, command, log):
        self.command, self.log = [str(part) for part in command], Path(log)
        self.log.unlink(missing_ok=True)
        self.out, self.lines = tempfile.TemporaryFile(), 0
        began = time.monotonic()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out)
        try:
            self.start = self.stop_at_next_line() - began  # seconds to the end of the first step
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def step(self):
        """Seconds of the next step, from outside."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        return self.stop_at_next_line() - began

    def memory_mb(self):
        """VmHWM so far."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1.024e-3 for line in status if line.startswith("VmHWM"))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.out.close()

    def stop_at_next_line(self):
        while not self.log.exists() or self.log.read_bytes().count(b"\n") <= self.lines:
            if self.process.poll() is not None:
                self.out.seek(0)
                last = "\n".join(self.out.read().decode(errors="replace").strip().splitlines()[-15:])
                raise Failed(f"{' '.join(self.command)}\nended with {self.process.returncode} and no further step:\n{last}")
            time.sleep(0.0005)
        now = time.monotonic()
        os.kill(self.process.pid, signal.SIGSTOP)
        self.lines += 1
        return now
