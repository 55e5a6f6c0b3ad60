"""The command line as a program: results on stdout, everything else on stderr."""

import io
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

import foresay
from foresay.cli import main as main_module
from foresay.cli.commands import VERBS
from foresay.cli.terminal import Terminal
from foresay.foundation import heartbeat
from tests.support.commands import LOADED, SHORT, At, Run, Said, one_object
from tests.support.processes import start_program


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("info nano --jsno", "--jsno"),
        ("train nano", "--data"),
        ("generate nano Hi --layout diagonal", "diagonal"),
        ("generate nano Hi --masks many", "many"),
        ("fly", "fly"),
        ("", "generate"),
    ],
)
def test_misspelt_command_is_refused(arguments: str, named: str, run: Run) -> None:
    said = run(*arguments.split())
    assert (said.status, said.out) == (2, "")
    assert named in said.err
    assert "--help" in said.err
    assert "Traceback" not in said.err


def test_what_takes_long_says_that_it_is_at_work(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS", 0.001)
    assert re.search(r"^info: at work for \d+ s$", run("info", at.adapter).err, flags=re.M)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples(verb: str, run: Run) -> None:
    said = run(verb, "--help")
    assert (said.status, said.err) == (0, "")
    assert "Examples" in said.out
    assert f"foresay {verb}" in said.out.partition("Examples")[2]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("verb", ["", *VERBS, "data preview", "data generate"])
@pytest.mark.parametrize("tier", ["--help", "--help-all"])
def test_help_is_wrapped_and_shows_nothing_internal(
    verb: str, tier: str, columns: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = run(*verb.split(), tier).out
    prose = re.sub(r"^Examples:\n(  .*\n)+", "", shown, flags=re.M).splitlines()  # a command stays on its line
    assert max(len(line) for line in prose if "{" not in line) <= columns
    assert not re.search(r"None|\b(opening|chosen|loading)\b\.? options|_[a-z]+ options", shown)


def test_help_has_two_tiers(run: Run) -> None:
    basic, everything = run("bench", "--help").out, run("bench", "--help-all").out
    assert "--max-new-tokens" in basic
    assert "--pack-linears" not in basic
    hidden = re.search(r"foresay bench --help-all shows (\d+) more options", basic)
    assert hidden is not None
    flags = [len(re.findall(r"^  --", shown, flags=re.M)) for shown in (basic, everything)]
    assert flags[1] - flags[0] == int(hidden[1])


def test_a_switch_that_is_on_reads_forwards(run: Run) -> None:
    shown = run("bench", "--help-all").out
    assert re.search(r"  --graphs, --no-graphs\n? +On CUDA, record .*\(default: on\)", shown, flags=re.S)


def test_no_color_leaves_no_bold_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Terminal(force_terminal=True, file=io.StringIO())
    console.print("text", style="bold red")
    monkeypatch.delenv("NO_COLOR")
    styled = Terminal(force_terminal=True, color_system="standard", file=io.StringIO())
    styled.print("text", style="bold red")
    assert console.file.getvalue() == "text\n"
    assert "\x1b[1;31m" in styled.file.getvalue()


@pytest.mark.parametrize("stderr", [True, False])
def test_lines_are_wrapped_between_words_in_a_terminal_alone(stderr: bool) -> None:
    said = "a chattering sentence of eight words or so"
    shown = {}
    for terminal in (True, False):
        console = Terminal(stderr=stderr, soft_wrap=True, width=20, force_terminal=terminal, color_system=None)
        console.file = io.StringIO()
        console.print(said)
        shown[terminal] = console.file.getvalue().replace(" \n", "\n")
    assert shown == {True: "a chattering\nsentence of eight\nwords or so\n", False: f"{said}\n"}


def test_help_names_every_verb(run: Run) -> None:
    said = run("--help")
    assert said.status == 0
    for verb in VERBS:
        assert verb in said.out


@pytest.mark.parametrize("words", ["import foresay", "main(['--help'])", "main(['--version'])", "main(['fly'])"])
def test_what_needs_no_model_imports_none(words: str) -> None:
    """torch and transformers take seconds."""
    code = (
        f"import sys\nfrom foresay.cli.main import main\ntry: {words}\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "[]"


def test_version_and_exports() -> None:
    assert set(foresay.__all__) <= set(dir(foresay))
    for name in foresay.__all__:
        assert getattr(foresay, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        foresay.Nothing  # noqa: B018


def test_version_is_said(run: Run) -> None:
    assert run("--version") == Said(0, f"foresay {foresay.__version__}\n", "")


def said(err: str) -> str:
    """What a program told on stderr, without lines that say how far it is: they come where the machine is slow."""
    return re.sub(r"^.*: (at work for|\d+ of \d+, after) .*\n", "", err, flags=re.M)


def program(*arguments: Any) -> subprocess.Popen[str]:
    """Started as from a shell: with a buffered stdout, whatever the tests run under."""
    command = [sys.executable, "-m", "foresay", *map(str, arguments)]
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)


def test_program_prints_its_result_and_nothing_else(at: At) -> None:
    with program("generate", at.adapter, "Say 3.", "--json", *SHORT) as process:
        out, err = process.communicate()
    assert one_object(Said(process.returncode, out, err))["tokens"]
    assert (process.returncode, said(err).replace("bfloat16", "float32")) == (0, LOADED)


def test_program_answers_bad_use(at: At) -> None:
    process = start_program(at.tmp, "check", at.tmp / "nothing")
    process.join()
    assert (process.exitcode, (at.tmp / "out").read_text()) == (2, "")
    err = said((at.tmp / "err").read_text())
    assert err.startswith("foresay: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("words", ["--version", "--help", "generate --help-all", "info nano --json"])
def test_program_whose_reader_went_away_says_nothing(words: str) -> None:
    """Of a few words, which stay in a buffer, and of many."""
    with program(*words.split()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, said(err).replace("bfloat16", "float32").replace(LOADED, "")) == (0, "")


def test_a_reader_that_goes_away_is_no_failed_check(at: At) -> None:
    """Of a table too, which rich prints."""
    os.mkfifo(at.tmp / "out")
    process = start_program(at.tmp, "info", at.adapter)
    (at.tmp / "out").open().close()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_do_no_harm(closed: str) -> None:
    code = "from foresay.cli.main import entry; entry()"
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" --version {closed}', sys.executable, code], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_under_stdout_is_one_sentence() -> None:
    code = "from foresay.cli.main import entry; entry()"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", code, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 2
    assert re.fullmatch(rb"foresay: \[Errno 28\] No space left on device; give paths .*\n", ended.stderr)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/a/b"),
            r"\[Errno 13\] Permission denied: '/a/b'; give paths that can",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            r"memory is full \(CUDA out of memory\.\); give smaller batches",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory is full .*; give smaller batches"),
        (MemoryError(), r"memory is full \(MemoryError\); give smaller batches"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(
    error: Exception, said: str, at: At, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("foresay.cli.commands.info.describe_base", refuse)
    ended = run("info", at.bases / "other")
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(f"foresay: {said}.*\n", ended.err)


def test_our_own_faults_are_shown_whole(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("foresay.cli.commands.info.describe_base", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run("info", at.bases / "other")


def test_a_warning_of_our_own_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Others say where they come from."""
    main_module._show_warning("costs are wrong; measure again", UserWarning, main_module.__file__, 7)
    assert capsys.readouterr().err == "foresay: costs are wrong; measure again\n"
    main_module._show_warning("deprecated", UserWarning, torch.__file__, 7)
    assert "UserWarning: deprecated" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "refused"), TimeoutError(110, "late"), OSError("theirs")]
)
def test_what_no_path_would_cure_is_not_called_a_full_disk(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(main_module, "_run", fails)
    with pytest.raises(type(error)):
        main_module.main(["info", "nano"])
