"""The command `gme`: its verbs, which are imported when called, and the one place where errors become exit codes."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import traceback
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import FrameType

from cyclopts import App

from gme_data.environment import set_default_env
from gme_data.errors import EXIT_INTERRUPTED, FoundryError, explain_memory_error, explain_os_error
from gme_data.redact import redact

app = App(
    name="gme",
    help="GME Foundry: train, evaluate and release universal multimodal embedders.",
    version=lambda: version("gme-foundry"),
    suppress_keyboard_interrupt=False,
    help_epilogue="Verbs that run a pipeline or a step of it take --config, --workspace, --dry-run and --json. "
    "`gme VERB --help` lists the options of a verb.",
    result_action="return_value",
)

# Import paths and not functions: `gme --help` must not import torch, MLflow or Prefect, which takes seconds.
_VERBS = {
    "pipeline": ("gme_cli.pipeline:pipeline", "Run the whole chain: data, training, evaluation, registration, report."),
    "plan": ("gme_cli.pipeline:show_plan", "Say what `gme pipeline` would do now, or with --gpus what training needs."),
    "init": ("gme_cli.init:init", "Write a pipeline file for passages and pictures of your own."),
    "atlas": ("gme_cli.atlas:app", "Build the embedded world, or look at it."),
    "corpus": ("gme_cli.corpus:app", "Bring a corpus of your own: read it, measure who writes about it."),
    "data": ("gme_cli.data:app", "Public training sets by name: list, plan, fetch, verify."),
    "synthesize": ("gme_cli.synthesize:synthesize", "Make training examples from passages, facts and pictures."),
    "validate": ("gme_cli.steps:validate", "Check every dataset; stop if one is bad."),
    "train": ("gme_cli.steps:train", "Train stage 1 or stage 2."),
    "mine": ("gme_cli.steps:mine_negatives", "Find hard negatives with the model of stage 1."),
    "baselines": ("gme_cli.steps:baselines", "Score what the model is compared with."),
    "study": ("gme_cli.study:study", "Compare variants of a recipe over several seeds."),
    "evaluate": ("gme_cli.umrb:evaluate", "Score the model on the test tasks, or with --suite on a benchmark."),
    "umrb": ("gme_cli.umrb:app", "The benchmark on any model: list, plan, fetch, verify, run, report, compare."),
    "report": ("gme_cli.steps:report", "Write the report of the last evaluation."),
    "register": ("gme_cli.steps:register", "Version the data, and register the model if the gate opens."),
    "promote": ("gme_cli.promote:promote", "Make a registered version the champion."),
    "rollback": ("gme_cli.promote:rollback", "Make the previous champion the champion again."),
    "release": ("gme_cli.release:app", "Make, verify, reproduce, compare or publish a release."),
    "scrub": ("gme_cli.scrub:scrub", "Check DVC cache and remote against the pointers; find a lost or flipped byte."),
    "embed": ("gme_cli.embed:embed", "Embed a corpus of your own into a folder of vectors."),
    "nearest": ("gme_cli.nearest:nearest", "Find the nearest rows of an embedded corpus for embedded queries."),
    "export": ("gme_cli.export:export", "Write a model for sentence-transformers, transformers or peft."),
    "serve": ("gme_cli.serve:serve", "Serve a model: an embeddings API and a page to search a corpus of your own."),
    "search": ("gme_cli.search:search", "Search the pictures and passages of the test tasks with the champion."),
    "schedules": ("gme_cli.schedules:schedules", "Fire the deployments of flows/prefect.yaml on this machine."),
    "slots": ("gme_cli.schedules:slots", "List what became of the slots of scheduled pipelines."),
    "dashboard": ("gme_cli.dashboard:dashboard", "Open the MLflow and Prefect pages on what the runs wrote."),
    "doctor": ("gme_cli.doctor:doctor", "Tell what is wrong with this machine."),
    "schema": ("gme_cli.pipeline:schema", "Print the JSON schema of a pipeline file, for editors."),
}
for _name, (_path, _help) in _VERBS.items():
    app.command(_path, name=_name, help=_help)


def main() -> None:
    """Entry point of the console script."""
    set_default_env()
    # SIGTERM would end Python without running `finally`, so servers and ranks would stay.
    signal.signal(signal.SIGTERM, _interrupt)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    code = run(sys.argv[1:])
    gc.freeze()  # spares the garbage collection of all imported modules at exit, which takes more than a second
    sys.exit(code)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C: servers and ranks are stopped, what is finished stays."""
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Runs one command line and returns the exit code; an error becomes one message without traceback."""
    try:
        result = app(arguments, exit_on_error=True)
    except FoundryError as error:
        return _print_error(error, arguments)
    except OSError as error:
        return _handle_os_error(error, arguments)
    except ModuleNotFoundError as error:
        return _print_error(_missing_package(error), arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. What was finished is kept; the same command goes on from there.\n")
        return EXIT_INTERRUPTED
    except Exception as error:  # the last line of defence: a clear line and a log instead of a traceback
        memory = explain_memory_error(error)
        return _print_error(memory, arguments) if memory else _crash(error, arguments)
    return result if isinstance(result, int) else 0


def _handle_os_error(error: OSError, arguments: list[str]) -> int:
    if isinstance(error, BrokenPipeError):  # the reader of the output has ended, such as `head`
        # Or Python would fail again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    explained = explain_os_error(error) or explain_memory_error(error)
    return _print_error(explained, arguments) if explained else _crash(error, arguments)


def _print_error(error: FoundryError, arguments: list[str]) -> int:
    # Looked up among the words, since an error can occur before the options are parsed; so is the workspace below.
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"error": str(error), "hint": error.hint, "exit_code": error.exit_code}) + "\n")
    hint = f"  → {error.hint}\n" if error.hint else ""
    # The name of a file may have characters that no encoding has.
    sys.stderr.write(f"\nError: {error}\n{hint}".encode(errors="backslashreplace").decode())
    return error.exit_code


def _missing_package(error: ModuleNotFoundError) -> FoundryError:
    return FoundryError(
        f"The Python package '{error.name}' is not installed.",
        hint="Run `make setup`, or install the extras: pip install 'gme-foundry[atlas,train,eval,pipeline,serve]'.",
    )


def _crash(error: BaseException, arguments: list[str]) -> int:
    """Handles an error of ours, not the user's: writes the traceback to a file and prints where."""
    # A traceback quotes lines and values, among which may be an address with a password.
    text = redact("".join(traceback.format_exception(error)))
    log = _workspace_of(arguments) / "runs" / "crash.log"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text(text, encoding="utf-8", errors="backslashreplace")
        where = f"The traceback is in {log}."
    except OSError:
        where = text
    if os.environ.get("GME_DEBUG"):
        sys.stderr.write(text)
    message = redact(f"{type(error).__name__}: {error}")
    sys.stderr.write(f"\nInternal error: {message}\n  → {where} Please report it.\n")
    return 70  # EX_SOFTWARE of sysexits.h


def _workspace_of(arguments: list[str]) -> Path:
    """Returns the workspace that a command line names, else the current folder."""
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("--workspace=")]
    folders += [value for name, value in pairwise(arguments) if name == "--workspace"]
    return Path(folders[-1] if folders else "")


if __name__ == "__main__":
    main()
