"""The command line without Ray: what it refuses, how, and with which exit code."""

import errno
import logging
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from cvgl_ray import __version__
from cvgl_ray.errors import InputError
from cvgl_ray.logs import VERBOSE


def raising(error: BaseException) -> Any:
    def stage(*_: Any, **__: Any) -> None:
        raise error

    return stage


COMMANDS = ("synth", "extract", "train", "tune", "evaluate", "localize", "quickstart", "config")
REPORT: dict[str, Any] = {"frozen": {}, "adapted": {}, "labels_read": False, "selection": {}}


def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The module run in a process of its own, which says on its last line what heavy packages it imported."""
    code = (
        "import runpy, sys, atexit\n"
        "atexit.register(lambda: print('imported:', sorted({'ray', 'torch', 'timm'} & set(sys.modules))))\n"
        "runpy.run_module('cvgl_ray', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_help_needs_neither_ray_nor_torch():
    done = fresh("--help")
    assert done.returncode == 0
    assert done.stdout.endswith("imported: []\n")
    assert done.stderr == ""
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_an_unknown_key_needs_neither_ray_nor_torch(tmp_path):
    done = fresh("train", "--output", str(tmp_path / "run"), "--set", "mstep.roundz=3")
    assert done.returncode == 2
    assert done.stdout == "imported: []\n"
    assert done.stderr.startswith("cvgl-ray: unknown key 'mstep.roundz' in the configuration (did you")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"cvgl-ray {command} [OPTIONS]" in out


def test_version(run):
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert out.endswith(f"version {__version__}\n")


def test_no_command_shows_the_help(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "\nCommands:\n" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conquer"], "No such command 'conquer'"),
        (["--frobnicate"], "No such option '--frobnicate'"),
        (["train", "--output", "x", "--frobnicate"], "No such option '--frobnicate'"),
        (["train"], "Missing option '--output'"),
        (["extract"], "Missing option '--output'"),
        (["evaluate", "--set", "a.b=1"], "Missing option '--output'"),
        (["localize", "--bundle", "b", "--gallery", "g"], "Missing option '--query'"),
        (
            ["localize", "--bundle", "b", "--gallery", "g", "--query", "q", "--top", "0"],
            "0 is not in the range x>=1",
        ),
        (
            ["localize", "--map", "m", "--output", "x", "--query", "q", "--every", "nan"],
            "--every is nan: give a finite number of seconds",
        ),
        (["config", "adaptor"], "there is no section 'adaptor' (did you mean 'adapter'?)"),
        (["synth", "--output", "s3://b/w"], "'s3://b/w' is a URI, and this takes a folder of this machine"),
        (["evaluate", "--output", "x", "--bundle", "s3://b/w"], "'s3://b/w' is a URI, and this takes"),
        (["synth", "--output", "w", "--places", "many"], "'many' is not a valid integer"),
        (["synth", "--output", "w", "--flight", "--views", "3"], "--views was given with --flight, where"),
        (["synth", "--output", "w", "--photos", "9"], "--photos was given without --flight, where it means"),
        (["synth", "--output", "w", "--image-size", "8"], "8 is not in the range x>=32"),
        (["train", "--output", "x", "--config", "none.toml"], "--config none.toml: the file cannot be read"),
        (
            ["tune", "--output", "x", "--set", "tune.trials=3"],
            "'tune': space is empty; name at least one key",
        ),
        (["extract", "--output", "x", "--set", "mstep.rounds=no"], "'mstep.rounds' is \"no\""),
        (
            ["evaluate", "--output", "x", "--set", "rounds"],
            "--set 'rounds' is not of the form section.key=value",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("cvgl-ray: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["extract", "train", "evaluate"])
def test_bad_input_that_a_stage_finds_is_one_line_too(run, stages, command):
    setattr(stages, f"{command}_stage", raising(InputError("the root\n  is missing")))
    assert run(command, "--output", "x") == (2, "", "cvgl-ray: the root is missing\n")


def test_other_packages_chatter_stays_out_of_standard_error(run, stages, monkeypatch):
    def chat(*_: Any, **__: Any) -> tuple[dict[str, Any], str]:
        logging.getLogger("faiss.loader").info("chatter")
        logging.getLogger("cvgl_ray.stage").info("news")
        return REPORT, "x"

    stages.evaluate_stage = chat
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
    try:
        code, _, err = run("evaluate", "--output", "x")
    finally:
        logging.getLogger("cvgl_ray").setLevel(logging.NOTSET)
    assert (code, err) == (0, "news\n")


def test_an_interrupt_says_how_to_go_on(run, stages):
    stages.train_stage = raising(KeyboardInterrupt())
    code, out, err = run("train", "--output", "x")
    assert (code, out) == (1, "")
    assert err.endswith("cvgl-ray: interrupted; start the same command again to go on\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_a_disk_refuses_is_one_line_and_exit_code_1(run, stages, number):
    stages.train_stage = raising(OSError(number, "whatever", "/d/part.parquet"))
    code, out, err = run("train", "--output", "x")
    assert (code, out) == (1, "")
    assert err.startswith(f"cvgl-ray: cannot read or write /d/part.parquet ({os.strerror(number)}); what was")
    assert err.endswith("start the same command again to go on\n")


def test_termination_says_how_to_go_on():
    code = (
        "import os, signal, sys, types\n"
        "stages = types.ModuleType('stages')\n"
        "stages.train_stage = lambda *_: os.kill(os.getpid(), signal.SIGTERM) or signal.pause()\n"
        "sys.modules['cvgl_ray.stages'] = stages\n"
        "from cvgl_ray.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "train", "--output", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith("cvgl-ray: interrupted; start the same command again to go on\n")
    assert "Traceback" not in done.stderr


def test_a_fault_of_the_program_is_one_sentence_above_its_traceback(run, stages, capsys):
    stages.train_stage = raising(RuntimeError("a bug\nat length"))
    with pytest.raises(RuntimeError, match="a bug"):
        run("train", "--output", "x")
    assert capsys.readouterr().err.splitlines() == [
        "cvgl-ray: stopped by RuntimeError: a bug (traceback below; the same command goes on)"
    ]


def test_verbose_gives_messages_level_and_time(run, stages, monkeypatch):
    stages.train_stage = lambda *_: logging.getLogger("cvgl_ray.stages").debug("news") or sys.exit(0)
    monkeypatch.setenv(VERBOSE, "0")  # which the option sets, for workers that inherit it
    for options, expected in (
        (["train"], "^$"),
        (["train", "--verbose"], r"^[0-9-]{10} [0-9:,]+ DEBUG \d+ cvgl_ray.stages: news\n$"),
    ):
        monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
        try:
            assert re.match(expected, run(*options, "--output", "x")[2])
        finally:
            logging.getLogger("cvgl_ray").setLevel(logging.NOTSET)
