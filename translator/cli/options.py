"""Options that several commands share, in groups; a command gets each group as one value."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Literal, TextIO, get_args

import click
import msgspec
from click.core import ParameterSource

from translator.cli.report import LINES, Report, colored
from translator.document.domain import MAX_SIZE
from translator.output.ci import DOCUMENTS
from translator.topology import DOMID_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path  # noqa: TC004 - nobody converts the groups below, so their types stay words

    from click.shell_completion import CompletionItem

    Decorator = Callable[[Any], Any]

Progress = Literal["auto", "plain", "json", "none"]


class Planning(msgspec.Struct, frozen=True):
    """What a plan depends on besides its document; the names are those of `translator.plan`'s parameters."""

    domid: int | None
    layout: str | None
    coldplug: str
    device_models: str | None
    usbback: bool | None


class Connecting(msgspec.Struct, frozen=True):
    """How the host is reached, and which of its domains is meant by name."""

    xenstore: Path | None
    qmp: tuple[str, ...]
    sysfs: Path
    timeout: float | None
    name: str | None


class Reaching(Connecting, frozen=True):
    """The same for a command without a plan, which does not say where the domain's records live."""

    layout: Literal["libxl", "rfc7"] | None


class Journaling(msgspec.Struct, frozen=True):
    """Where journals are kept, how long to wait for who works on the domain, and how steps are told as they go."""

    state: Path | None
    lock_timeout: float | None
    progress: Progress


class Moving(msgspec.Struct, frozen=True):
    """What comes to a running domain or goes from it, and all else that `attach` and `detach` are told alike."""

    domain: str
    devices: tuple[str, ...]
    save: Path | None
    dry_run: bool
    connecting: Reaching
    journaling: Journaling
    max_size: int
    reporting: Reporting


class Probing(msgspec.Struct, frozen=True):
    """Which running QEMU is asked what it has, and where that is kept."""

    probe: str | None
    state: Path | None


class Jobs(msgspec.Struct, frozen=True):
    """Who works on many inputs, what was settled before, and how far the work is told to be."""

    jobs: int
    scheduler: str | None
    since: Path | None
    progress: Literal["auto", "none"]

    @property
    def elsewhere(self) -> bool:
        """Whether others work than this process."""
        return self.jobs > 1 or self.scheduler is not None


class Reporting(msgspec.Struct, frozen=True):
    """How findings are told."""

    strict: bool
    diagnostics: str
    color: str

    def colors(self, stream: TextIO) -> bool:
        """Tell whether what goes there is coloured."""
        return colored(self.color, stream)

    def report(self) -> Report:
        """Return what tells the findings of the command that runs."""
        return Report(self.strict, self.diagnostics, self.color)


class NamingCommand(click.Command):
    """A command that is told by options which domain is meant, and says so to who gives the domain as an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if type(error) is not click.UsageError:
                raise
            # too many of them: what else is wrong has a class of its own
            given = {one.name for one in self.params}
            words = {"name": "--name NAME", "domid": "--domid N", "qmp": "--qmp PATH"}
            ways = " or ".join(word for name, word in words.items() if name in given)
            raise click.UsageError(f"{error.message}; a domain is named by {ways}", ctx) from None


class PathType(click.Path):
    """A path as `pathlib` has it, imported where one is given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pathlib import Path

        return Path(os.fsdecode(super().convert(value, param, ctx)))


def _group(name: str, kind: type[msgspec.Struct], *options: Decorator) -> Decorator:
    """Return a decorator that adds the options, whose values the command gets as one `kind` called `name`.

    A group may be part of another one.
    """

    def add(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def call(*args: Any, **kwargs: Any) -> Any:
            fields = {field: kwargs.pop(field, None) for field in kind.__struct_fields__}
            return command(*args, **kwargs, **{name: kind(**fields)})

        decorated: Any = call
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return add


def examples(*commands: str) -> str:
    """Return the end of a command's help: how it is called, each call on a line of its own."""
    return "\b\n" + "\n".join(("Example:" if len(commands) == 1 else "Examples:", *(f"  {one}" for one in commands)))


def refuse(names: Iterable[str], why: str) -> None:
    """End with exit code 2 where one of these options is given, which would mean nothing."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{why}, so --{name.replace('_', '-')} means nothing")


def seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read a number of seconds."""
    try:
        seconds = None if value is None else float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a number of seconds") from error
    if seconds is not None and not 0.1 <= seconds <= 86400:  # which NaN is not either
        raise click.BadParameter(f"{value!r} is not between 0.1 and 86400 seconds")
    return seconds


def _bytes(context: click.Context, option: click.Parameter, value: str) -> int:
    """Read a number of bytes, such as 4096, 64K or 16M."""
    match = re.fullmatch(r"([1-9][0-9]{0,11})([KM]?)", value.strip().upper())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size: say a number of bytes, such as 4096, 64K or 16M")
    return int(match[1]) * {"": 1, "K": 2**10, "M": 2**20}[match[2]]


def _address(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Read a scheduler's address."""
    if value is not None and re.fullmatch(r"(tcp|tls|wss?|ucx)://[^/\s]+", value) is None:
        raise click.BadParameter(f"{value!r} is no address such as tcp://10.0.0.1:8786")
    return value


def complete_file(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Have the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begun, type="file")]


def complete_word(words: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what has the shell complete one of these words."""
    return lambda context, parameter, begun: [word for word in words if word.startswith(begun)]


def complete_device(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Have the shell complete a device's word, or the name of a file with a fragment."""
    from click.shell_completion import CompletionItem

    from translator.hotplug.words import PLAIN

    words = [word for word in (*PLAIN, "controller:", "hostdev:") if word.startswith(begun)]
    return [*map(CompletionItem, words), *complete_file(context, parameter, begun)]


DOMID = click.IntRange(1, DOMID_MAX)

file = click.argument("file", shell_complete=complete_file)
files = click.argument("files", nargs=-1, required=True, metavar="FILE…", shell_complete=complete_file)
domid = click.option("--domid", type=DOMID, help="The running Xen domain's id.")
output = click.option("--output", type=PathType(dir_okay=False), help="Write here, not to standard output.")
max_size = click.option(
    "--max-size",
    callback=_bytes,
    default=str(MAX_SIZE),
    metavar="BYTES",
    help="The largest document to read, such as 64K or 16M [default: 16M].",
)
reporting = _group(
    "reporting",
    Reporting,
    click.option("--strict", is_flag=True, help="Take warnings for errors."),
    click.option(
        "--diagnostics", type=click.Choice([*LINES, *DOCUMENTS]), default="text", help="How findings are printed."
    ),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour findings."),
)
layout = click.option("--layout", type=click.Choice(["libxl", "rfc7"]), help="Where a Xen domain's records live.")
planning = _group(
    "planning",
    Planning,
    domid,
    layout,
    click.option(
        "--coldplug",
        type=click.Choice(["auto", "all"]),
        default="auto",
        help="Which emulated devices are put on QEMU's command line: those that cannot be hot-plugged, or all.",
    ),
    click.option(
        "--device-models",
        type=click.Choice(["primary", "single", "per-controller", "named"]),
        help="How controllers are shared out among a Xen HVM guest's emulators, whatever the document says.",
    ),
    click.option(
        "--usbback/--no-usbback",
        default=None,
        help="Whether the host has the kernel's PVUSB backend, which a PV or PVH guest's controllers without a model "
        "then get; looked up where a host is at hand.",
    ),
)
_reaching = (
    click.option("--xenstore", type=PathType(), help="xenstored's socket or device."),
    click.option("--qmp", multiple=True, metavar="[NAME=]PATH", help="A QEMU's QMP socket."),
    click.option("--sysfs", type=PathType(), default="/sys", help="Where the host's /sys is."),
    click.option("--timeout", callback=seconds, metavar="SECONDS", help="For each wait [default: 10]."),
)
connecting = _group(
    "connecting", Connecting, *_reaching, click.option("--name", help="The running Xen domain's name.")
)
reaching = _group("connecting", Reaching, *_reaching, layout)  # for a command whose argument says which domain
looking = _group(
    "connecting", Reaching, *_reaching, layout, click.option("--name", help="The running Xen domain's name.")
)
domain = click.argument("domain")
force = click.option(
    "--force", is_flag=True, help="Do not wait for the guest and the backend to let go of a controller."
)
dry_run = click.option(
    "--dry-run", is_flag=True, help="Look at the host, and print the steps that would be carried out."
)
state = click.option(
    "--state",
    type=PathType(file_okay=False),
    metavar="DIR",
    help="Where journals are kept [default: /var/lib/translator, or $XDG_STATE_HOME/translator when not root].",
)
progress = click.option(
    "--progress",
    type=click.Choice(get_args(Progress)),
    default="auto",
    help="How steps are told as they go, on standard error [default: live on a terminal, else a line each].",
)
journaling = _group(
    "journaling",
    Journaling,
    state,
    click.option(
        "--lock-timeout",
        callback=seconds,
        metavar="SECONDS",
        help="How long to wait while somebody else works on the domain [default: 10].",
    ),
    progress,
)
moving = _group(
    "moving",
    Moving,
    domain,
    click.argument("devices", nargs=-1, required=True, metavar="DEVICE…", shell_complete=complete_device),
    click.option(
        "--save",
        type=PathType(exists=True, dir_okay=False),
        metavar="FILE.xml",
        help="Change this document too, so that it has what the domain has.",
    ),
    dry_run,
    reaching,
    journaling,
    max_size,
    reporting,
)
probing = _group(
    "probing",
    Probing,
    click.option(
        "--probe",
        type=click.Path(),
        metavar="QMP",
        help="Ask the QEMU at this QMP socket what it has, and compare.",
    ),
    state,
)
jobs = _group(
    "jobs",
    Jobs,
    click.option(
        "--jobs",
        type=click.IntRange(1, 1024),
        default=1,
        metavar="N",
        help="Use so many processes, for many documents.",
    ),
    click.option(
        "--scheduler",
        callback=_address,
        metavar="tcp://HOST:PORT",
        help="Have the workers of this dask scheduler do it.",
    ),
    click.option(
        "--since",
        type=PathType(dir_okay=False),
        metavar="STATE",
        help="Pass over inputs that had nothing to be told of when STATE was written, and have not changed.",
    ),
    click.option(
        "--progress",
        type=click.Choice(["auto", "none"]),
        default="auto",
        help="How far a long run is, on a terminal.",
    ),
)
