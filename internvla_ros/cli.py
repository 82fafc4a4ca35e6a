"""The command line: `internvla COMMAND ...`.

A command is a module with `add_arguments(parser)` and `run(args) -> int`. It is imported only when
it is asked for, so that `internvla --help` answers at once and a command needs only its own parts.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from internvla_ros import __version__

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell says it

# What a command may raise to say what is wrong; anything else is a fault of this package.
EXPECTED_ERRORS = (ValueError, RuntimeError, OSError, NotImplementedError)


@dataclass(frozen=True)
class Command:
    """A sub-command: its name, the module that carries it out and one line about it."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("demo", "internvla_ros.nodes.cli_demo", "a simulated arm carries out instructions"),
    Command("up", "internvla_ros.nodes.cli_up", "bring the ROS 2 graph up and keep it up"),
    Command("lifecycle", "internvla_ros.nodes.cli_lifecycle", "start, hold or free a node"),
    Command("generate", "internvla_ros.sim.cli", "make a dataset in the simulator"),
    Command("train", "internvla_ros.train.cli", "train a policy: grounding, then actions"),
    Command(
        "recipe",
        "internvla_ros.train.cli_recipe",
        "a whole recipe: data, training, evaluation, the finished policy",
    ),
    Command(
        "ablation",
        "internvla_ros.train.cli_ablation",
        "what spatial guidance is worth: three arms, several seeds, one table",
    ),
    Command("evaluate", "internvla_ros.evaluate.cli", "measure a policy, without ROS in the loop"),
    Command("serve", "internvla_ros.serving.cli", "offer a policy to robots on other machines"),
    Command(
        "import-libero",
        "internvla_ros.evaluate.libero.cli_import",
        "make a dataset of LIBERO's own demonstrations",
    ),
    Command("dataset", "internvla_ros.data.cli", "tell of, check or convert a dataset"),
    Command("ground", "internvla_ros.model.cli_ground", "ask a policy where things are"),
    Command("checkpoint", "internvla_ros.model.cli_checkpoint", "inspect or convert a checkpoint"),
)

# What provides a module that a command may lack.
PROVIDERS = {
    "rclpy": "ROS 2: run 'make build' and 'source env.bash'",
    "internvla_ros.msg": "the built messages: run 'make build' and 'source env.bash'",
    "torch": "PyTorch: pip install 'internvla_ros[model]'",
    "accelerate": "accelerate: pip install 'internvla_ros[train]'",
    "transformers": "transformers: pip install 'internvla_ros[model]'",
    "mujoco": "MuJoCo: pip install 'internvla_ros[sim]'",
    "pyarrow": "pyarrow: pip install 'internvla_ros[sim]'",
    "av": "PyAV: pip install 'internvla_ros[sim]'",
    "mcap": "mcap: pip install 'internvla_ros[sim]'",
    "h5py": "h5py: pip install 'h5py>=3.12'",
    "rosbags": "rosbags: pip install 'internvla_ros[sim]'",
    "msgpack": "msgpack: pip install 'internvla_ros[serving]'",
    "websockets": "websockets: pip install 'internvla_ros[serving]'",
}


class HelpFormatter(argparse.HelpFormatter):
    """States an argument's default where there is one and the help does not say it itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        default = action.default
        silent = ("", argparse.SUPPRESS)
        says_nothing = default is None or isinstance(default, bool) or default in silent
        if not text or says_nothing or not action.option_strings or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


def top_parser() -> argparse.ArgumentParser:
    """The parser of what stands before the command's own arguments."""
    width = max(len(command.name) for command in COMMANDS)
    listing = "\n".join(f"  {command.name:{width}}  {command.summary}" for command in COMMANDS)
    parser = argparse.ArgumentParser(
        prog="internvla",
        description="InternVLA-M1 for ROS 2.",
        epilog=f"commands:\n{listing}\n\n'internvla COMMAND --help' lists a command's arguments.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"internvla_ros {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "command",
        metavar="COMMAND",
        choices=[command.name for command in COMMANDS],
        help="one of those below",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def command_parser(command: Command, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of the arguments of `command`, filled by its `module`."""
    parser = argparse.ArgumentParser(
        prog=f"internvla {command.name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
    )
    module.add_arguments(parser)
    use_formatter(parser)
    return parser


def use_formatter(parser: argparse.ArgumentParser) -> None:
    """Let `parser` and the parsers of its own sub-commands write their help as all others do."""
    parser.formatter_class = HelpFormatter
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub_command in action.choices.values():
                use_formatter(sub_command)


def missing_part(error: ImportError) -> str | None:
    """What to install for the module that `error` is about; None: not a part that may lack."""
    name = error.name or ""
    for module, provider in PROVIDERS.items():
        if name == module or name.startswith(f"{module}."):
            return provider
    if "cannot open shared object file" in str(error):
        return "a system library: run 'make build' and 'source env.bash'"
    return None


def run(command: Command, arguments: Sequence[str]) -> int:
    """Carry out `command`; return its exit status."""
    module = importlib.import_module(command.module)
    args = command_parser(command, module).parse_args(arguments)
    return int(module.run(args) or 0)


def fail(command: Command, message: str) -> int:
    print(f"internvla {command.name}: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_ERROR


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's); return the exit status."""
    top = top_parser().parse_args(argv)
    command = next(command for command in COMMANDS if command.name == top.command)
    try:
        return run(command, top.arguments)
    except KeyboardInterrupt:
        print(f"internvla {command.name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except ImportError as error:
        provider = missing_part(error)
        if provider is None or top.debug:
            raise
        return fail(command, f"needs {provider} ({str(error).splitlines()[0]})")
    except EXPECTED_ERRORS as error:
        if top.debug:
            raise
        return fail(command, str(error) or type(error).__name__)


if __name__ == "__main__":
    sys.exit(main())
