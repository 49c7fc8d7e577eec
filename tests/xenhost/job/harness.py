"""What the scenarios stand on: commands in dom0, guests and their consoles, xenstore, and a verdict for each.

Runs inside the emulated host with nothing but Python's own library; `translator` lies beside it in site/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

SITE = Path(__file__).with_name("site")
ACCESS_LOG = Path("/var/log/xen/xenstored-access.log")


class ClaimError(Exception):
    """What a scenario expected is not so."""


@dataclass
class Done:
    """What a command came to.

    `requests` are those that it sent to oxenstored, `lines` all that oxenstored logged meanwhile: also what guest and
    QEMU asked, errors and events.
    """

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    requests: int
    lines: int

    def check(self, code: int = 0, says: str = "") -> Done:
        """Return this if the exit code and a part of what was printed are as expected."""
        if self.code != code or says not in self.out + self.err:
            wanted = f"exit code {code}" + (f" and {says!r}" if says else "")
            raise ClaimError(f"{' '.join(self.words)}: exit code {self.code}, not {wanted}\n{self.out}{self.err}")
        return self


@dataclass
class Verdict:
    """A scenario's outcome; `figures` are commands with their seconds, xenstore requests and log lines."""

    name: str
    claim: str
    passed: bool
    seconds: float
    reason: str = ""
    figures: list[tuple[str, float, int, int]] = field(default_factory=list)


class Console:
    """What a guest prints from now on: it tells of each USB device that it sees."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = Path(f"/var/log/xen/console/guest-{name}.log")
        # what a domain of that name has printed before is in the same file
        self.mark = len(self.log.read_text(errors="replace")) if self.log.exists() else 0

    def wait(self, pattern: str = "modules loaded", within_s: float = 400) -> str:
        """Wait until a line of the console, behind the last one waited for, matches; return the line."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            # the log is appended to while we read: a line without its end is not there yet
            text = self.log.read_text(errors="replace") if self.log.exists() else ""
            fresh = text[self.mark : text.rfind("\n") + 1]
            if found := re.search(pattern, fresh):
                self.mark += found.end()
                return found.group()
            time.sleep(0.5)
        raise ClaimError(f"{self.name}'s console shows no {pattern!r} within {within_s} s:\n{fresh[-800:]}")

    def wait_all(self, *patterns: str, within_s: float = 180) -> None:
        """Wait for a line for each of the patterns, in whatever order they come."""
        start, ends = self.mark, []
        for pattern in patterns:
            self.mark = start
            self.wait(pattern, within_s)
            ends.append(self.mark)
        self.mark = max(ends)

    def sees(self, product: str, within_s: float = 180) -> str:
        """Wait until the guest tells of a new device with that vendor:product."""
        return self.wait(rf"USB \+\S+ {product}", within_s)

    def loses(self, product: str, within_s: float = 180) -> str:
        """Wait until the guest tells that the device is gone."""
        return self.wait(rf"USB -\S+ {product}", within_s)


class Guest(Console):
    """A guest of /srv/guests, or one that `create` makes."""

    def __init__(self, name: str, create: Callable[[], object] | None = None) -> None:
        super().__init__(name)
        if create is None:
            sh("xl", "create", f"/srv/guests/{name}.cfg").check()
        else:
            create()
        self.domid = int(sh("xl", "domid", name).check().out)

    def document(self, *devices: str) -> Path:
        """Write a domain document with these elements for the guest, and return its path."""
        type, machine = {"pv": ("linux", "xenpv"), "pvh": ("xenpvh", "xenpvh"), "hvm": ("hvm", "xenfv")}[
            re.sub(r"\d", "", self.name)
        ]
        path = Path(f"/tmp/{self.name}.xml")
        path.write_text(
            f"<domain type='xen'>\n  <name>{self.name}</name>\n  <memory>262144</memory>\n"
            f"  <os><type arch='x86_64' machine='{machine}'>{type}</type></os>\n"
            "  <devices>\n" + "".join(f"    {device}\n" for device in devices) + "  </devices>\n</domain>\n"
        )
        return path


@contextmanager
def guest(name: str, create: Callable[[], object] | None = None) -> Iterator[Guest]:
    """Run a guest for a while; afterwards nothing in xenstore may speak of it any more."""
    one = Guest(name, create)
    try:
        one.wait()
        yield one
    finally:
        sh("xl", "destroy", name)
    left = [line for line in tree() if re.search(rf"/(vusb|qusb|vscsi)/{one.domid}(/|$)", line)]
    if left:
        raise ClaimError(f"nodes of the destroyed guest are left: {left}")


def saved(one: Guest) -> Path:
    """Stop a guest and keep it in a file, its domid too."""
    path = Path(f"/tmp/{one.name}.saved")
    sh("xl", "save", "-D", one.name, str(path)).check()
    return path


def restored(path: Path, uuid: str | None = None) -> None:
    """Run the guest of a file under the domid that it had; with another UUID it is another domain to everybody."""
    if uuid is not None:
        with path.open("r+b") as file:
            said = re.search(rb'"uuid": "([-0-9a-f]{36})"', file.read(1 << 16))
            if said is None:
                raise ClaimError(f"{path} does not say which domain it is of")
            file.seek(said.start(1))
            file.write(uuid.encode())
    # libxl gives no domid again within a minute, nor, told otherwise, within the same second
    words = ("env", "LIBXL_DOMID_REUSE_TIMEOUT=0", "xl", "restore", str(path))
    for _ in range(10):
        done = sh(*words)
        if "recently used" not in done.err:
            break
        time.sleep(1)
    done.check()


def sh(*words: str, input: str | None = None, within_s: float = 300) -> Done:
    """Run a command to its end."""
    before = log_size()
    start = time.monotonic()
    done = subprocess.run(words, input=input, capture_output=True, text=True, timeout=within_s)
    seconds = time.monotonic() - start
    result = Done(words, done.returncode, done.stdout, done.stderr, seconds, *logged(before))
    print(f"  [{seconds:5.1f} s, {result.requests:4} requests, exit {result.code}] {' '.join(words)}", flush=True)
    return result


def translator(*words: str, input: str | None = None) -> Done:
    """Run our command."""
    os.environ["PYTHONPATH"] = str(SITE)
    done = sh(sys.executable, "-m", "translator", *words, input=input)
    done.words = ("translator", *words)
    if "Traceback" in done.err:
        raise ClaimError(f"{' '.join(done.words)} ends with a traceback:\n{done.err}")
    return done


def python(*words: str) -> Done:
    """Run a program of ours with our packages."""
    os.environ["PYTHONPATH"] = f"{SITE}:{SITE.parent.parent}"
    return sh(sys.executable, *words)


def begun(*words: str) -> subprocess.Popen[bytes]:
    """Begin one of our commands, and go on meanwhile."""
    os.environ["PYTHONPATH"] = str(SITE)
    print(f"  [begun] translator {' '.join(words)}", flush=True)
    return subprocess.Popen((sys.executable, "-m", "translator", *words))


def hears_the_kernel(process: subprocess.Popen[bytes], within_s: float = 180) -> None:
    """Wait until a process listens for what the kernel tells of devices that come and go."""
    uevents = re.compile(rf"^\S+\s+15\s+{process.pid}\s", re.MULTILINE)
    deadline = time.monotonic() + within_s
    while not uevents.search(Path("/proc/net/netlink").read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ClaimError(f"process {process.pid} does not listen for uevents")
        time.sleep(0.5)


def log_size() -> int:
    """Return where oxenstored's access log ends, in bytes."""
    return ACCESS_LOG.stat().st_size if ACCESS_LOG.exists() else 0


def logged(since: int) -> tuple[int, int]:
    """Return how many requests came over connections that were opened since, and how many lines were logged."""
    time.sleep(0.2)  # for what the end of a command has still to say
    with ACCESS_LOG.open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").splitlines()
    # after a conflict the daemon does a transaction again by itself, under a new number, with r(ATTEMPT) before each
    again = set(re.findall(r"\sr\(\d+\):(A\d+\.\d+)\s", "\n".join(lines)))
    opened: set[str] = set()
    requests = 0
    for line in lines:
        # [time]  A12.3   read   /path: connection and transaction
        if not (found := re.match(r"\[\S+\]\s+((A\d+)(?:\.\d+)?)\s+(\S+)(?:\s+(\S+))?", line)):
            continue
        transaction, connection, word, more = found.groups()
        if word == "newconn":
            opened.add(connection)
        elif connection not in opened or transaction in again or more == "event":
            continue
        elif word not in ("endconn", "error", "commit", "conflict", "w"):
            requests += 1
    return requests, len(lines)


def tree() -> list[str]:
    """Return what xenstore holds, a line for each node with value and permissions; sorted."""
    done = subprocess.run(("xenstore-ls", "-fp"), capture_output=True, text=True, check=True)
    # a guest's kernel tells of its abilities when it likes
    return sorted(line for line in done.stdout.splitlines() if not re.search(r"/domain/\d+/control/", line))


def usb_tree(domid: int) -> list[str]:
    """Return the nodes that have to do with a domain's USB devices."""
    pattern = (
        rf"(/local/domain/{domid}/device/vusb|/backend/[vq]usb/{domid}|/libxl/{domid}/device/vusb|/libxl/usbback)"
    )
    return [line for line in tree() if re.search(pattern, line)]


def same(before: list[str], after: list[str]) -> None:
    """Fail with the difference unless two trees are equal."""
    if before != after:
        gone = [f"- {line}" for line in before if line not in after]
        new = [f"+ {line}" for line in after if line not in before]
        raise ClaimError("\n".join(["xenstore is not as it was:", *gone, *new]))


Scenario = Callable[[], "list[Done] | None"]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Make a function known as a scenario; its docstring is the claim, and what it returns are its figures."""
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def main(wanted: list[str]) -> int:
    """Run the scenarios whose names begin with one of the words, in that order; write report.json.

    Returns:
        The exit code: 0 when there were some, and all passed.
    """
    verdicts = []
    chosen = dict.fromkeys(name for word in wanted or [""] for name in SCENARIOS if name.startswith(word))
    for name in chosen:
        run = SCENARIOS[name]
        claim = " ".join((run.__doc__ or "").split())
        print(f"== {name}: {claim}", flush=True)
        start = time.monotonic()
        try:
            figures = run() or []
        except Exception as error:  # whatever it is, it is this scenario's verdict, and the others still run
            reason = str(error) if isinstance(error, ClaimError) else traceback.format_exc()
            verdicts.append(Verdict(name, claim, False, time.monotonic() - start, reason))
            print(f"FAILED {name}: {reason}", flush=True)
        else:
            figured = [(" ".join(done.words), done.seconds, done.requests, done.lines) for done in figures]
            verdicts.append(Verdict(name, claim, True, time.monotonic() - start, figures=figured))
            print(f"passed {name} in {verdicts[-1].seconds:.0f} s", flush=True)
    Path("/job/out/report.json").write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n")
    return int(not verdicts or not all(verdict.passed for verdict in verdicts))
