# SPDX-License-Identifier: BSD-2-Clause
"""The command line: a thin layer over the Python API, which each command imports when it runs.

Exit codes: 0 done, 1 hardware and reference differ (MISMATCH), 2 bad input or a missing tool,
3 a fault of this program, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import click

from xnorforge.gen.errors import UserError
from xnorforge.sw.cli_board import boards, doctor, program, serve
from xnorforge.sw.cli_build import build, patch
from xnorforge.sw.cli_model import compile_, inspect, verify
from xnorforge.sw.cli_run import infer, load
from xnorforge.sw.cli_train import train
from xnorforge.sw.errors import HostError

__all__ = ["cli", "main", "run"]

INTERRUPTED = 130
TERMINATED = 143


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="xnorforge", message="%(prog)s %(version)s")
def cli() -> None:
    """From a trained binary neural network to a verified FPGA accelerator.

    \b
    xnorforge demo                                    all of it, on a shipped model
    xnorforge compile model.onnx --board icebreaker -o build/net
    xnorforge verify build/net --level rtl
    xnorforge build build/net
    xnorforge program build/net

    XNORFORGE_DEBUG=1 shows the traceback of an error.
    """


@click.command()
@click.option("--board", default="icebreaker", show_default=True, help="Board to build for.")
@click.option("--inject-fault", is_flag=True, help="Flip one weight bit in what the hardware gets.")
@click.option(
    "-o", "--output", type=click.Path(), default="build/demo", show_default=True, help="Bundle."
)
@click.option("--no-bitstream", is_flag=True, help="Leave out place and route.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def demo(board: str, inject_fault: bool, output: str, no_bitstream: bool, as_json: bool) -> None:
    """A trained MNIST network to Verilog, simulated board, real driver and bitstream.

    With --inject-fault it must say MISMATCH and exit with 1.
    """
    from xnorforge.sw.demo import run_demo

    code = run_demo(
        board=board,
        out=output,
        inject_fault=inject_fault,
        bitstream=not no_bitstream,
        as_json=as_json,
    )
    click.get_current_context().exit(code)


for _command in (
    demo, doctor, boards, inspect, compile_, build, patch, verify, serve, infer, load, program,
    train
):  # fmt: skip
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; errors become one sentence on stderr. Returns the exit code."""
    debug = os.environ.get("XNORFORGE_DEBUG", "") not in ("", "0")
    try:
        code = cli.main(args=arguments, prog_name="xnorforge", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted", err=True)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        if debug:
            raise
        error.show()
        return 2
    except (UserError, HostError) as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        return 2
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): nothing more to say, nor at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"Error: {error.strerror or error}{where}", err=True)
        return 2
    except Exception as error:
        if debug:
            raise
        from xnorforge.gen.extras import missing_package

        absent = missing_package(error)
        if absent is not None:
            click.echo(f"Error: {absent}", err=True)
            return 2
        click.echo(
            f"Error: this is a fault of xnorforge: {type(error).__name__}: {error}; "
            "XNORFORGE_DEBUG=1 shows where",
            err=True,
        )
        return 3


def main() -> None:
    """Entry point of `xnorforge`. A polite kill cleans up as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(run())
