"""The command line: help without heavy imports, one clear line for an error, Ctrl-C."""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from internvla_ros import __version__, cli

HEAVY = ("torch", "transformers", "mujoco", "pinocchio", "rclpy")


def use_command(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """Make `internvla trial` a command whose module has this `run`."""
    module = ModuleType("trial_command")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=1, help="how often")

    module.add_arguments = add_arguments  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("trial", module.__name__, "a trial"),))


def raising(error: BaseException) -> object:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from internvla_ros import cli\n"
        "try:\n"
        "    cli.main(['--help'])\n"
        "finally:\n"
        f"    print('heavy:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("heavy: []")
    for command in cli.COMMANDS:
        assert f"  {command.name} " in done.stdout
        assert command.summary in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"internvla_ros {__version__}\n"


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_each_of_its_arguments(command: cli.Command) -> None:
    parser = cli.command_parser(command, importlib.import_module(command.module))
    text = parser.format_help()
    assert text.startswith(f"usage: internvla {command.name}")
    assert all(action.help or action.choices for action in parser._actions), text


def test_help_states_defaults_once() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3, help="how often")
    parser.add_argument("--rate", type=float, default=2.0, help="default: the robot's")
    parser.add_argument("--file", help="to write")
    commands = parser.add_subparsers()
    commands.add_parser("part").add_argument("--size", default=7, help="how large")
    cli.use_formatter(parser)
    text = parser.format_help() + commands.choices["part"].format_help()
    assert "how often (default: 3)" in text
    assert "how large (default: 7)" in text
    assert text.count("default:") == 3


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: internvla" in capsys.readouterr().err


def test_arguments_and_exit_status_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    use_command(monkeypatch, lambda args: args.count)
    assert cli.main(["trial", "--count", "3"]) == 3
    use_command(monkeypatch, lambda args: None)
    assert cli.main(["trial"]) == 0


@pytest.mark.parametrize(
    "error",
    [ValueError("robot 'r2d2' is unknown"), RuntimeError("two\nlines"), OSError(2, "no", "x")],
)
def test_an_expected_error_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_command(monkeypatch, raising(error))
    assert cli.main(["trial"]) == cli.EXIT_ERROR
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"internvla trial: {' '.join(str(error).split())}\n"
    with pytest.raises(type(error)):
        cli.main(["--debug", "trial"])


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    use_command(monkeypatch, raising(KeyError("fault")))
    with pytest.raises(KeyError):
        cli.main(["trial"])


@pytest.mark.parametrize(
    ("module", "remedy"),
    [("rclpy", "env.bash"), ("internvla_ros.msg._plan", "make build"), ("torch", "pip install")],
)
def test_a_missing_part_says_what_provides_it(
    module: str, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ModuleNotFoundError(f"No module named '{module}'", name=module)
    use_command(monkeypatch, raising(missing))
    assert cli.main(["trial"]) == cli.EXIT_ERROR
    message = capsys.readouterr().err
    assert remedy in message and module in message


def test_a_missing_library_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ImportError("libGL.so.1: cannot open shared object file: No such file\nlong advice")
    use_command(monkeypatch, raising(error))
    assert cli.main(["trial"]) == cli.EXIT_ERROR
    message = capsys.readouterr().err
    assert "libGL.so.1" in message and message.count("\n") == 1


def test_another_missing_module_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    use_command(monkeypatch, raising(ModuleNotFoundError("no module", name="internvla_ros.typo")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["trial"])


def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "patient.py").write_text(
        "import time\n"
        "def add_arguments(parser): pass\n"
        "def run(args):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from internvla_ros import cli\n"
        "cli.COMMANDS = (cli.Command('wait', 'patient', 'waits'),)\n"
        "sys.exit(cli.main(['wait']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == cli.EXIT_INTERRUPTED
    assert errors == "internvla wait: interrupted\n"


def test_a_closed_pipe_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text(
        "def add_arguments(parser): pass\n"
        "def run(args):\n"
        "    for number in range(1_000_000):\n"
        "        print(number)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from internvla_ros import cli\n"
        "cli.COMMANDS = (cli.Command('talk', 'talker', 'talks'),)\n"
        "sys.exit(cli.main(['talk']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == cli.EXIT_ERROR
    process.stderr.close()


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("internvla") is None, reason="the overlay is not sourced")
def test_the_installed_command_has_workers(tmp_path: Path) -> None:
    """Worker processes import the program that they were started from."""
    words = ["evaluate", "tabletop", "--policy", "expert", "--scenes", "2", "--max-seconds", "1"]
    report = tmp_path / "report.json"
    done = subprocess.run(
        ["internvla", *words, "--workers", "2", "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=120.0,
    )
    assert done.returncode == 0, done.stderr
    assert report.is_file()
