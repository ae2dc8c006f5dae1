# SPDX-License-Identifier: BSD-2-Clause
"""Commands about boards, real or simulated: boards, doctor, serve, program."""

from __future__ import annotations

import sys
from typing import Any

import click

from xnorforge.sw.cli_output import console, emit, json_option, steps, table

__all__ = ["boards", "doctor", "program", "serve"]


@click.command()
@json_option
def boards(as_json: bool) -> None:
    """List the boards with device, family, resources, clock and link.

    A board of your own is a file like these, see docs/boards.md: compile --board my.toml
    """
    from xnorforge.gen.boards import BOARDS, MAX_HZ
    from xnorforge.gen.cards import CARDS

    items: list[dict[str, Any]] = [
        {
            "name": name,
            "title": board.title,
            "device": board.device.name,
            "device_title": board.device.title,
            "family": board.device.family.name,
            "package": board.package,
            "luts": board.device.luts,
            "block_rams": board.device.block_rams,
            "block_ram_bits": board.device.block_rams * board.device.family.block_ram_bits,
            "spram_blocks": board.device.spram_blocks,
            "oscillator_hz": board.oscillator_hz,
            "pll": board.pll,
            "clock_hz": board.clock_hz,
            "link": "uart",
            "baud": board.baud,
            "bridge_baud": board.bridge_baud if board.bridge_baud < MAX_HZ else None,
            "uart": board.uart,
        }
        for name, board in BOARDS.items()
    ]
    items += [_card_item(card) for card in CARDS.values()]
    if as_json:
        emit({"boards": items})
        return
    rows = [
        (
            item["name"],
            item["device"],
            item["family"],
            f"{item['luts']:,}",
            item["block_rams"],
            f"{item['block_ram_bits'] // 1024:,} kbit"
            + (f" + {item['spram_blocks'] * 256:,}" if item["spram_blocks"] else ""),
            f"{item['clock_hz'] / 1e6:g} MHz",
            f"uart, {item['uart']}" if item["link"] == "uart" else item["pcie"],
        )
        for item in items
    ]
    columns = ("Board", "Device", "Family", "LUTs", "RAMs", "Memory", "Clock", "Link")
    console().print(table("", columns, rows, right=(3, 4, 5, 6)))


def _card_item(card: Any) -> dict[str, Any]:
    """A board with a PCIe edge."""
    device = card.device
    return {
        "name": card.name,
        "title": card.title,
        "device": device.name,
        "device_title": device.title,
        "family": device.family.name,
        "package": card.part,
        "luts": device.luts,
        "block_rams": device.block_rams,
        "block_ram_bits": device.block_rams * device.family.block_ram_bits,
        "spram_blocks": device.spram_blocks,
        "clock_hz": device.clock_hz,
        "link": "pcie",
        "pcie": f"pcie, {card.lanes} lanes",
    }


@click.command()
@click.option("--quick", is_flag=True, help="Skip the compiler test.")
@json_option
def doctor(quick: bool, as_json: bool) -> None:
    """Say what works on this machine, what is missing and what to install, and what is attached.

    Exits with 2 if anything is missing.
    """
    from rich.markup import escape

    from xnorforge.gen.doctor import diagnose

    with steps("Looking around") as say:
        found = diagnose(compile_test=not quick, progress=say)
    if as_json:
        emit(found.to_json())
        click.get_current_context().exit(0 if found.ok else 2)
    rows = [
        (
            _status(c),
            c.area,
            escape(c.name),
            escape(c.detail if c.ok else f"{c.detail}: {c.fix}"),
        )
        for c in found.checks
    ]
    console().print(table("", ("", "Area", "What", "Detail"), rows))
    abilities = [
        ("[green]yes[/]" if a.works else "[red]no[/]", a.what, escape(", ".join(a.missing)))
        for a in found.abilities
    ]
    console().print(table("What works here", ("", "What", "Missing"), abilities))
    cache = found.cache
    total, taken, limit = (cache[k] / 1e6 for k in ("bytes", "steps_bytes", "steps_limit_bytes"))
    click.echo(
        f"Cache: {cache['folder']}, {total:,.0f} MB; {cache['steps']} build steps take "
        f"{taken:,.0f} of at most {limit:,.0f} MB"
    )
    if found.install:
        click.echo("To make all of it work:\n" + "\n".join(f"  {line}" for line in found.install))
    click.get_current_context().exit(0 if found.ok else 2)


def _status(check: Any) -> str:
    if check.ok:
        return "[green]ok[/]"
    colour = "red" if check.needed_for else "yellow"
    word = (
        "closed" if check.area in ("ports", "usb") else "missing" if check.needed_for else "absent"
    )
    return f"[{colour}]{word}[/]"


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="TCP port; 0: any.")
@json_option
def serve(bundle: str, port: int, as_json: bool) -> None:
    """Run a bundle on the virtual board until Ctrl-C.

    Prints a serial path and a socket:// address; `infer --port` takes either. Of a bundle with
    link axi or pcie it simulates the bus, too, and has a socket:// address only.

    \b
    xnorforge serve build/net
    """
    from xnorforge.sim.simulated import simulated_board

    with steps("Starting the virtual board") as say:
        board = simulated_board(bundle, tcp_port=port, progress=say)
    pty = getattr(board, "pty", None)
    with board:
        if as_json:
            emit({"pty": pty, "socket": board.port, "pid": board.pid})
        else:
            if pty is not None:
                click.echo(f"Serial path: {pty}")
            click.echo(f"Socket:      {board.port}\nCtrl-C ends it.")
        sys.stdout.flush()
        status = board.wait()
    if status:
        click.echo(f"The virtual board ended with status {status}", err=True)
    click.get_current_context().exit(2 if status else 0)


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--flash", "target", flag_value="flash", help="Into flash: stays over power-off.")
@click.option("--sram", "target", flag_value="sram", help="Into the FPGA: gone at power-off.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Read flash back and compare."
)
@click.option("--cable", default="", help="Another kind of cable, by openFPGALoader's name.")
@click.option("--ftdi-serial", default="", help="The cable with this serial number.")
@click.option("--busdev-num", default="", help="The cable at this USB bus and device, like 1:7.")
@json_option
def program(
    bundle: str,
    target: str | None,
    verify: bool,
    cable: str,
    ftdi_serial: str,
    busdev_num: str,
    as_json: bool,
) -> None:
    """Load a built bundle onto its board.

    Where it goes unless told: flash of boards reached by SPI or by a bootloader, else the FPGA.
    `xnorforge doctor` lists what is attached. Without a board it prints the command that would
    do it and exits with 2.

    \b
    xnorforge program build/net
    xnorforge program build/net --flash --ftdi-serial D00123
    """
    from xnorforge.gen.program import Cable
    from xnorforge.gen.program import program as load_board

    with steps("Programming") as say:
        result = load_board(
            bundle,
            target=target or "",
            verify=verify,
            cable=Cable(cable, ftdi_serial, busdev_num),
            progress=say,
        )
    if as_json:
        emit(vars(result))
    elif result.done:
        where = {
            "flash": "In flash" + (", read back and equal" if result.verified else ""),
            "sram": "In the FPGA until power-off",
        }[result.target]
        click.echo(f"{where}: {result.command}")
    else:
        click.echo(f"Not programmed: {result.reason}", err=True)
        click.echo(result.command)
    click.get_current_context().exit(0 if result.done else 2)
